"""Connections over jump hosts without prompts, with the real ssh and a jump host that asks for a password."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from gpurun.ssh.jump import proxy_command, without_prompts
from gpurun.ssh.openssh import Address, Connection


class Gateway(asyncssh.SSHServer):
    """An SSH server that asks for a password and accepts none."""

    tried: list[str]

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self.tried.append(password)
        return False


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the passwords that the gateway gets on the way to the host `far`."""
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
    """Run ssh without a terminal; return what it printed."""
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SSH_ASKPASS")}
    argv = connection.argv("true", shared=False)
    done = subprocess.run(argv, env=env, start_new_session=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 255
    return done.stderr


def test_jump_host_that_asks_for_a_password_gets_none(tried: list[str]) -> None:
    connection = Connection("far", Address("far"), interactive=False)
    run(connection)
    assert tried, "ssh itself sends empty passwords"
    tried.clear()
    assert b"Permission denied" in run(without_prompts(connection))
    assert tried == []


def test_jump_of_the_address_is_used(tried: list[str]) -> None:
    connection = Connection("far", Address("far", jump="gateway"))
    assert b"Permission denied" in run(without_prompts(connection))
    assert tried == []
    assert without_prompts(connection).control_path == connection.control_path


def test_jump_host_behind_another_is_reached_without_prompts(tried: list[str]) -> None:
    """`far` is the jump host here; its own configuration names the gateway."""
    assert b"Permission denied" in run(without_prompts(Connection("farther", Address("farther"))))
    assert tried == []


def test_jump_host_of_all_hosts_is_used_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host *\n  ProxyJump gateway\n")
    monkeypatch.setenv("GPURUN_SSH", f"ssh -F {config}")
    connection = Connection("far", Address("far"))
    assert without_prompts(connection).proxy == proxy_command(["gateway"], connection.connect_timeout)


def test_host_without_a_jump_gets_no_proxy(tried: list[str]) -> None:
    assert without_prompts(Connection("gateway", Address("gateway"))).proxy is None
