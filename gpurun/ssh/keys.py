"""Keys: the host's, before it is trusted, and ours, when it is put on a host. Paramiko and Fabric are loaded here.

Fabric by itself checks no host key: here every connection refuses all keys but the one that it was given.
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

WORD_IN = 6.0  # seconds for each step of a handshake
ALL_IN = 25.0  # seconds for everything that is asked through Paramiko, which can hang

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
        """As ssh shows it: ED25519, RSA, ECDSA."""
        return self.kind.removeprefix("ssh-").split("-")[0].upper()


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file."""

    file: str
    line: int
    key: HostKey
    marker: str = ""  # "@cert-authority" or "@revoked"


def known_keys(host: Resolved) -> list[KnownKey]:
    """What the known_hosts files have of this host, hashed names and patterns too."""
    return [
        known
        for file in host.known_hosts
        if Path(file).is_file()
        for known in parse_found(file, process.run(["ssh-keygen", "-F", host.known_as, "-f", file], timeout=10).stdout)
    ]


def parse_found(file: str, printed: bytes) -> list[KnownKey]:
    """`ssh-keygen -F`: a comment that names the line's number, then the line."""
    found = []
    number = 0
    for line in printed.decode("utf-8", "replace").splitlines():
        words = line.split()
        if line.startswith("# Host "):
            number = int(words[-1]) if words[-1].isdigit() else int(words[-2])
            continue
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3:
            found.append(KnownKey(file, number, HostKey(words[1], words[2]), marker))
    return found


def trust(host: Resolved, key: HostKey) -> Path:
    """Write the key into the user's first known_hosts file, as ssh does after a yes. Returns the file.

    Raises GpurunError where the configuration names no file.
    """
    file = Path(host.known_hosts[0] if host.known_hosts else "/dev/null")
    if file.exists() and not file.is_file():
        raise GpurunError(
            f"your SSH configuration remembers no host keys for {host.alias} (UserKnownHostsFile {file})",
            f"give it a file: UserKnownHostsFile ~/.ssh/known_hosts under Host {host.alias} in ~/.ssh/config",
        )
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = file.read_bytes() if file.is_file() else b""
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    with file.open("ab") as out:
        out.write(gap + f"{host.known_as} {key.kind} {key.blob}\n".encode())
    return file


def open_socket(host: Resolved) -> Any:
    """A connection to the host's SSH port, through its proxies where it has some. Raises OSError."""
    if host.jump or host.proxy_command:
        import paramiko

        return paramiko.ProxyCommand(shlex.join(proxy_argv(host)))
    return socket.create_connection((host.host, host.port), timeout=WORD_IN)


def proxy_argv(host: Resolved) -> list[str]:
    """The program whose stdin and stdout are the connection to the host."""
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
    """`[user@]host[:port]` as ssh wants it."""
    host, colon, port = jump.rpartition(":")
    return ["-p", port, host] if colon and port.isdigit() and not host.endswith(":") else [jump]


def start(host: Resolved, prefer: Sequence[str] = ()) -> paramiko.Transport:
    """Shake hands, and no more: nobody is trusted and nothing is told yet. Raises SSHException, OSError.

    `prefer`: kinds of key to ask for first, as ssh does with those it knows.
    """
    import paramiko

    transport = paramiko.Transport(open_socket(host))
    transport.daemon = True
    transport.banner_timeout = transport.auth_timeout = WORD_IN
    transport.handshake_timeout = WORD_IN
    options = transport.get_security_options()
    offered = list(options.key_types)
    wanted = [kind for known in prefer for kind in _signatures(known) if kind in offered]
    options.key_types = (*wanted, *(kind for kind in offered if kind not in wanted))
    try:
        transport.start_client(timeout=WORD_IN)
    except BaseException:
        transport.close()
        raise
    return transport


def _signatures(kind: str) -> list[str]:
    """How a key of that kind may sign."""
    return ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]


def host_key_of(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.get_base64())


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do `work` in a thread and give it up after `seconds` (TimeoutError): Paramiko's own limits have holes."""
    result: list[T] = []
    failure: list[BaseException] = []

    def do() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        raise TimeoutError(f"no end within {seconds:.0f} s")
    return result[0]


def password_run(host: Resolved, key: HostKey, password: str, command: str, stdin: bytes) -> int:
    """Run a line on a host whose key is `key`, logging in with a password. Its exit code.

    Raises PermissionError when the password is refused, HostUnreachable when the connection fails.
    """
    import fabric
    import paramiko

    # ssh has read the user's configuration already; Fabric would follow its own reading of it.
    settings = fabric.Config(ssh_config=paramiko.SSHConfig())
    login = fabric.Connection(host.host, user=host.user, port=host.port, connect_timeout=WORD_IN, config=settings)
    login.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    known = paramiko.PKey.from_type_string(key.kind, base64.b64decode(key.blob))
    login.client.get_host_keys().add(host.host if host.port == 22 else f"[{host.host}]:{host.port}", key.kind, known)
    login.connect_kwargs = {
        "password": password,
        "look_for_keys": False,
        "allow_agent": False,
        "banner_timeout": WORD_IN,
        "auth_timeout": WORD_IN,
        "sock": open_socket(host),
    }

    def talk() -> int:
        login.open()
        try:
            channel = login.transport.open_session(timeout=WORD_IN)
            channel.exec_command(command)
            channel.sendall(stdin)
            channel.shutdown_write()
            return int(channel.recv_exit_status())
        finally:
            login.close()

    try:
        return within(ALL_IN, talk)
    except paramiko.AuthenticationException as error:
        raise PermissionError(str(error)) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise HostUnreachable(
            f"the connection to {host.alias} failed: {error}", "try again", where=host.alias
        ) from error


def agent_keys() -> list[str]:
    """Fingerprints of the keys in the user's agent; empty without one. Paramiko knows FIDO keys not, ssh-add does."""
    with suppress(process.NotInstalled, process.TimedOut):
        listed = process.run(["ssh-add", "-l"], timeout=5)
        if listed.code == 0:
            return [line.split()[1] for line in listed.stdout.decode("utf-8", "replace").splitlines() if " " in line]
    return []
