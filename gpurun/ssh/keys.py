"""Read a host's key before it is trusted, and install ours on a host. Paramiko and Fabric are loaded only here.

Fabric does not check host keys itself, so each connection here refuses every key except the one that it was given.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gpurun import process
from gpurun.errors import GpurunError, HostUnreachable
from gpurun.ssh.config import Resolved
from gpurun.ssh.openssh import program

if TYPE_CHECKING:
    import paramiko

STEP_TIMEOUT = 6.0  # seconds for each step of a handshake
TOTAL_TIMEOUT = 25.0  # seconds for one task of Paramiko, which can hang

T = TypeVar("T")


@dataclass(frozen=True)
class HostKey:
    """A host's public key. `kind` as in known_hosts (`ssh-ed25519`), `blob` in base64."""

    kind: str
    blob: str

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def name(self) -> str:
        """The kind as ssh shows it: ED25519, RSA, ECDSA."""
        return self.kind.removeprefix("ssh-").split("-")[0].upper()


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file."""

    file: str
    line: int
    key: HostKey
    marker: str = ""  # "@cert-authority" or "@revoked"


def known_keys(host: Resolved) -> list[KnownKey]:
    """Return this host's lines in the known_hosts files, also those with hashed names and patterns."""
    return [
        known
        for file in host.known_hosts
        if Path(file).is_file()
        for known in parse_known_keys(
            file, process.run(["ssh-keygen", "-F", host.known_as, "-f", file], timeout=10).stdout
        )
    ]


def parse_known_keys(file: str, printed: bytes) -> list[KnownKey]:
    """Parse the output of `ssh-keygen -F`: a comment with the line's number, then the line."""
    known = []
    number = 0
    for line in printed.decode("utf-8", "replace").splitlines():
        words = line.split()
        if line.startswith("# Host "):
            number = int(words[-1]) if words[-1].isdigit() else int(words[-2])
            continue
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3:
            known.append(KnownKey(file, number, HostKey(words[1], words[2]), marker))
    return known


def trust(host: Resolved, key: HostKey) -> Path:
    """Add the key to the user's first known_hosts file, as ssh does after a yes; return the file.

    Raises GpurunError when the configuration names no file.
    """
    file = Path(host.known_hosts[0] if host.known_hosts else "/dev/null")
    if file.exists() and not file.is_file():
        raise GpurunError(
            f"your SSH configuration stores no host keys for {host.alias} (UserKnownHostsFile {file})",
            f"add this line: UserKnownHostsFile ~/.ssh/known_hosts under Host {host.alias} in ~/.ssh/config",
        )
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = file.read_bytes() if file.is_file() else b""
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    with file.open("ab") as out:
        out.write(gap + f"{host.known_as} {key.kind} {key.blob}\n".encode())
    return file


def open_socket(host: Resolved) -> Any:
    """Connect to the host's SSH port, through its proxies if it has any. Raises OSError."""
    if host.jump or host.proxy_command:
        import paramiko

        return paramiko.ProxyCommand(shlex.join(proxy_argv(host)))
    return socket.create_connection((host.host, host.port), timeout=STEP_TIMEOUT)


def proxy_argv(host: Resolved) -> list[str]:
    """Return the program whose stdin and stdout are the connection to the host."""
    if host.jump:
        *before, last = host.jump.split(",")
        through = ["-J", ",".join(before)] if before else []
        target = f"[{host.host}]:{host.port}"
        return [*program(), "-oBatchMode=yes", "-oClearAllForwardings=no", *through, "-W", target, *_destination(last)]
    command = host.proxy_command or ""
    for mark, value in (("%h", host.host), ("%p", str(host.port)), ("%r", host.user), ("%n", host.alias)):
        command = command.replace(mark, value)
    return ["sh", "-c", "exec " + command.removeprefix("exec ")]


def _destination(jump: str) -> list[str]:
    """Return `[user@]host[:port]` as arguments of ssh."""
    host, colon, port = jump.rpartition(":")
    return ["-p", port, host] if colon and port.isdigit() and not host.endswith(":") else [jump]


def start_handshake(host: Resolved, prefer: Sequence[str] = ()) -> paramiko.Transport:
    """Exchange keys and stop before the login: the host is not trusted yet. Raises SSHException, OSError.

    `prefer`: kinds of host key to ask for first, as ssh does with known keys.
    """
    import paramiko

    transport = paramiko.Transport(open_socket(host))
    transport.daemon = True
    transport.banner_timeout = transport.auth_timeout = STEP_TIMEOUT
    transport.handshake_timeout = STEP_TIMEOUT
    options = transport.get_security_options()
    offered = list(options.key_types)
    preferred = [kind for known in prefer for kind in _signatures(known) if kind in offered]
    options.key_types = (*preferred, *(kind for kind in offered if kind not in preferred))
    try:
        transport.start_client(timeout=STEP_TIMEOUT)
    except BaseException:
        transport.close()
        raise
    return transport


def _signatures(kind: str) -> list[str]:
    """Return the signature algorithms of a key of that kind."""
    return ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]


def host_key_of(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.get_base64())


def run_within(seconds: float, work: Callable[[], T]) -> T:
    """Run `work` in a thread and raise TimeoutError after `seconds`: Paramiko's own timeouts do not cover everything."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        raise TimeoutError(f"not finished within {seconds:.0f} s")
    return result[0]


def run_with_password(host: Resolved, key: HostKey, password: str, command: str, stdin: bytes) -> int:
    """Log in with a password to the host with that key, run a command, and return its exit code.

    Raises PermissionError when the password is refused, HostUnreachable when the connection fails.
    """
    import fabric
    import paramiko

    # `host` has the user's configuration as ssh reads it. Fabric must not read it again in its own way.
    settings = fabric.Config(ssh_config=paramiko.SSHConfig())
    login = fabric.Connection(host.host, user=host.user, port=host.port, connect_timeout=STEP_TIMEOUT, config=settings)
    login.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    known = paramiko.PKey.from_type_string(key.kind, base64.b64decode(key.blob))
    login.client.get_host_keys().add(host.host if host.port == 22 else f"[{host.host}]:{host.port}", key.kind, known)
    login.connect_kwargs = {
        "password": password,
        "look_for_keys": False,
        "allow_agent": False,
        "banner_timeout": STEP_TIMEOUT,
        "auth_timeout": STEP_TIMEOUT,
        "sock": open_socket(host),
    }

    def run() -> int:
        login.open()
        try:
            channel = login.transport.open_session(timeout=STEP_TIMEOUT)
            channel.exec_command(command)
            channel.sendall(stdin)
            channel.shutdown_write()
            return int(channel.recv_exit_status())
        finally:
            login.close()

    try:
        return run_within(TOTAL_TIMEOUT, run)
    except paramiko.AuthenticationException as error:
        raise PermissionError(str(error)) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise HostUnreachable(
            f"the connection to {host.alias} failed: {error}", "try again", where=host.alias
        ) from error


def agent_keys() -> list[str]:
    """Return the fingerprints of the keys in the user's agent. ssh-add also lists FIDO keys; Paramiko does not."""
    with suppress(process.NotInstalled, process.TimedOut):
        listed = process.run(["ssh-add", "-l"], timeout=5)
        if listed.code == 0:
            return [line.split()[1] for line in listed.stdout.decode("utf-8", "replace").splitlines() if " " in line]
    return []
