"""Run an SSH host inside this process, for the real ssh and rsync. Nothing in ~/.ssh is read or written.

    with EmbeddedHost(workdir) as host:
        subprocess.run([*host.ssh_command, host.alias, "uname -n"])

It listens on loopback, accepts one temporary key, and runs commands as the current user in a private home.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import site
import sys
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncssh

from gpurun.demo import processes
from gpurun.demo.session import Shell, serve

ALIAS = "demo"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Every process of the host carries this variable, so that `close` finds those that have detached themselves.
MARK = "GPURUN_EMBEDDED_HOST"
# The variables that the host inherits: where programs and packages are, and how to download packages.
INHERITED = ("LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "REQUESTS_CA_BUNDLE")
INHERITED_PREFIXES = ("PIP_", "UV_", "SSL_CERT_")
INHERITED_SUFFIXES = ("_proxy", "_PROXY")

T = TypeVar("T")


class EmbeddedHost:
    """Serve from a thread of its own between `start` and `close`.

    Args:
        workdir: an empty or missing directory for keys, configuration and the home. Keep its path short:
            programs on the host create sockets below it, whose paths are limited to about 104 bytes.
        python: the interpreter whose folder comes first on the host's PATH.
        shell: the absolute path of the login shell.
        forwarding: whether ports and sockets of this machine can be reached through the host.
        sockets: whether forwarding includes sockets; many administrators allow only ports.
        environment: further variables for the programs on the host.
    """

    def __init__(
        self,
        workdir: Path,
        python: str = sys.executable,
        *,
        shell: str = "/bin/sh",
        forwarding: bool = True,
        sockets: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.alias = ALIAS
        self.workdir = workdir.absolute()
        self.home = self.workdir / "home"
        self.ssh_config = self.workdir / "ssh" / "config"
        self.port = 0
        self.forwarding, self.sockets = forwarding, sockets
        variables = _environment(self.home, Path(python), shell)
        # gpurun's locks belong to one machine, and this host must look like a machine of its own.
        variables |= {"GPURUN_LOCKS": str(self.workdir / "locks"), MARK: str(self.workdir)}
        self.shell = Shell(self.home, {**variables, **(environment or {})}, shell)
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded ssh host", daemon=True)
        self._listener: asyncssh.SSHAcceptor | None = None

    @property
    def ssh_command(self) -> list[str]:
        """The ssh command with a configuration that has this host's alias."""
        return ["ssh", "-F", str(self.ssh_config)]

    def start(self) -> Self:
        """Create keys and configuration, and listen."""
        keys = self.ssh_config.parent
        for directory in (self.workdir, self.home, keys, self.workdir / "locks"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        public = {name: _make_key(keys / name) for name in ("host_key", "user_key")}
        self._thread.start()
        self._listener = self._run(self._listen(keys))
        self.port = self._listener.get_port()
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public['host_key']}\n")
        self.ssh_config.write_text(_ssh_config(self.alias, self.port, keys))
        return self

    def close(self) -> None:
        """Close every connection and end every process that the host has started. Safe to repeat."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self._run(self._stop_listening())
            processes.end_marked(MARK, str(self.workdir))
            self._run(_finish_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def hang_up(self) -> None:
        """Break every connection, as a network fault does; the host continues to listen."""
        self._run(self._abort_connections())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(steps, self._loop).result(timeout=30)

    async def _listen(self, keys: Path) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Server(self),
            process_factory=lambda channel: serve(channel, self.shell),
            server_host_keys=[str(keys / "host_key")],
            authorized_client_keys=str(keys / "user_key.pub"),
            encryption_algs=[
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "chacha20-poly1305@openssh.com",
            ],
            compression_algs=None,
            encoding=None,
            line_editor=False,
        )

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._abort_connections()

    async def _abort_connections(self) -> None:
        for connection in list(self.connections):
            connection.abort()


class _Server(asyncssh.SSHServer):
    """Controls logins and forwarding."""

    def __init__(self, host: EmbeddedHost) -> None:
        self.host = host
        self.connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn
        self.host.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is not None:
            self.host.connections.discard(self.connection)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return self.host.forwarding and dest_host in LOOPBACK

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self.host.forwarding and self.host.sockets


async def _finish_tasks() -> None:
    """Let the tasks of the last channels finish."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    _, waiting = await asyncio.wait(others, timeout=5) if others else (set(), set())
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def _make_key(path: Path) -> str:
    """Write a key pair with a private mode; return the public key in the format of known_hosts."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.export_private_key())
    key.write_public_key(path.with_suffix(".pub"))
    return key.export_public_key().decode().strip()


def _environment(home: Path, python: Path, shell: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES) or name.endswith(INHERITED_SUFFIXES)
    }
    places = [str(python.absolute().parent), os.environ.get("PATH", os.defpath)]
    return {
        **inherited,
        **_user_packages(),
        "HOME": str(home),
        "PATH": os.pathsep.join(places),
        "SHELL": shell,
        "USER": "demo",
        "LOGNAME": "demo",
    }


def _user_packages() -> dict[str, str]:
    """Return the variables that keep the user's packages and pip settings visible with another HOME."""
    variables = {"PYTHONUSERBASE": site.getuserbase()}
    for settings in (Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        with contextlib.suppress(OSError):
            if settings.is_file() and "PIP_CONFIG_FILE" not in os.environ:
                variables["PIP_CONFIG_FILE"] = str(settings)
    return variables


def _ssh_config(alias: str, port: int, keys: Path) -> str:
    lines = {
        "HostName": "127.0.0.1",
        "Port": str(port),
        "User": "demo",
        "IdentityFile": _quoted(keys / "user_key"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _quoted(keys / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }
    return f"Host {alias}\n" + "".join(f"    {key} {value}\n" for key, value in lines.items())


def _quoted(path: Path) -> str:
    """Quote a path for ssh_config: in quotes because of spaces, with percent signs doubled."""
    return '"' + str(path).replace("%", "%%") + '"'
