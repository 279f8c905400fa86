"""An ssh that is to ask nobody asks nobody on its way either: with the real ssh, and a host that wants a password."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from gpurun.ssh.jump import asking_nobody, command
from gpurun.ssh.openssh import Address, Connection


class Gateway(asyncssh.SSHServer):
    """It lets in nobody, and wants a password."""

    tried: list[str]

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self.tried.append(password)
        return False


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The passwords that the gateway was told, on the way to the host `far`."""
    tried: list[str] = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = type("Server", (Gateway,), {"tried": tried})
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(server, "127.0.0.1", 0, server_host_keys=[key])

    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    port = listening.sockets[0].getsockname()[1]
    hosts, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
    hosts.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    config.write_text(
        f"Host farther\n  ProxyJump far\nHost far\n  ProxyJump gateway\nHost gateway\n  HostName 127.0.0.1\n  Port {port}\n"
        f"Host *\n  UserKnownHostsFile {hosts}\n  IdentityFile none\n  IdentityAgent none\n"
    )
    monkeypatch.setenv("GPURUN_SSH", f"ssh -F {config}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield tried
    loop.call_soon_threadsafe(listening.close)
    asyncio.run_coroutine_threadsafe(listening.wait_closed(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(connection: Connection) -> bytes:
    """Without a terminal; what ssh said."""
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SSH_ASKPASS")}
    argv = connection.argv("true", shared=False)
    done = subprocess.run(argv, env=env, start_new_session=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 255
    return done.stderr


def test_a_gateway_that_wants_a_password_gets_none(tried: list[str]) -> None:
    connection = Connection("far", Address("far"), interactive=False)
    run(connection)
    assert tried, "ssh by itself answers for the user"
    tried.clear()
    assert b"Permission denied" in run(asking_nobody(connection))
    assert tried == []


def test_the_way_that_was_told_counts_as_well(tried: list[str]) -> None:
    connection = Connection("far", Address("far", jump="gateway"))
    assert b"Permission denied" in run(asking_nobody(connection))
    assert tried == []
    assert asking_nobody(connection).control_path == connection.control_path


def test_a_gateway_behind_another_is_reached_quietly_too(tried: list[str]) -> None:
    """`far` is a jump host here, whose own configuration leads over the gateway."""
    assert b"Permission denied" in run(asking_nobody(Connection("farther", Address("farther"))))
    assert tried == []


def test_a_jump_host_that_all_hosts_go_over_is_jumped_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host *\n  ProxyJump gateway\n")
    monkeypatch.setenv("GPURUN_SSH", f"ssh -F {config}")
    connection = Connection("far", Address("far"))
    assert asking_nobody(connection).proxy == command(["gateway"], connection.connect_timeout)


def test_a_host_without_a_jump_is_reached_as_it_is(tried: list[str]) -> None:
    assert asking_nobody(Connection("gateway", Address("gateway"))).proxy is None
