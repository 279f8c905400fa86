"""Find out why a connection failed, and the exact repair. Runs only after ssh has failed, for half a minute at most; `check_name` before that.

It repeats the connection step by step: name, port, protocol, host key, our keys. The first step that fails is the reason.
The output of ssh is shown; nothing is decided by its text.
"""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurun import errors, process
from gpurun.errors import ContactLost, GpurunError, HostUnreachable, UsageError
from gpurun.ssh import config, keys
from gpurun.ssh.config import Resolved
from gpurun.ssh.keys import HostKey, KnownKey
from gpurun.ssh.openssh import CONNECTION_FAILED, Address, Connection

if TYPE_CHECKING:
    from paramiko import Transport

REACH_TIMEOUT = 5.0  # seconds for a name, and for a port


class Problem(Exception):
    """A step that failed: its code, what is wrong, and the next step of the user."""

    def __init__(self, code: str, what: str, next_step: str) -> None:
        super().__init__(what)
        self.code, self.what, self.next_step = code, what, next_step


def explain(connection: Connection, ssh_said: str = "") -> GpurunError:
    """Return the error that explains why the connection fails. `ssh_said`: the last line that ssh printed."""
    try:
        host = config.resolve(connection)
        keys.run_within(keys.TOTAL_TIMEOUT, lambda: _check_all_steps(connection, host))
        problem = Problem(
            errors.UNSTEADY,
            f"ssh could not connect to {connection.name}, though the host answers now",
            f"try again; if it fails again, this shows each step: ssh -v {shlex.join(_ssh_arguments(connection.address))} true",
        )
    except Problem as failed:
        problem = failed
    except GpurunError as error:
        return error
    except (TimeoutError, process.TimedOut):
        problem = _silent_host(connection.name)
    return _error(connection.name, problem, ssh_said)


def read_host_key(
    connection: Connection, host: Resolved, *, wanted: str | None = None
) -> tuple[HostKey, GpurunError | None]:
    """Return the host's key, and the error when it is unknown, changed or revoked. Raises HostUnreachable when there is no key.

    When the host has several keys, return a known one, else the one with the fingerprint `wanted`, else the one that ssh uses.
    """
    try:
        return keys.run_within(keys.TOTAL_TIMEOUT, lambda: _read_host_key(connection, host, wanted))
    except Problem as problem:
        raise _error(connection.name, problem) from problem
    except (TimeoutError, process.TimedOut):
        raise _error(connection.name, _silent_host(connection.name)) from None


def _read_host_key(connection: Connection, host: Resolved, wanted: str | None) -> tuple[HostKey, GpurunError | None]:
    _check_server(connection, host)
    known = keys.known_keys(host)
    kinds = [each.key.kind for each in known]
    key = _offered_key(host, kinds)
    try:
        check_host_key(connection.name, host, key, known)
    except Problem as problem:
        if problem.code == errors.KEY_UNKNOWN and wanted is not None:
            key = _key_with_fingerprint(host, wanted) or key
        return key, _error(connection.name, problem)
    return key, None


def _key_with_fingerprint(host: Resolved, fingerprint: str) -> HostKey | None:
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"):
        key = _offered_key(host, [kind])
        if key.fingerprint == fingerprint:
            return key
    return None


def _offered_key(host: Resolved, kinds: Sequence[str]) -> HostKey:
    transport = _shake_hands(host, kinds)
    try:
        return keys.host_key_of(transport)
    finally:
        transport.close()


def _error(name: str, problem: Problem, ssh_said: str = "") -> HostUnreachable:
    where = f"{name}\nssh said: {ssh_said}" if ssh_said else name
    kind = ContactLost if problem.code == errors.UNSTEADY else HostUnreachable
    return kind(problem.what, problem.next_step, where=where, code=problem.code)


def _silent_host(name: str) -> Problem:
    return Problem(
        errors.SILENT,
        f"{name} accepts connections and then sends nothing",
        "the host is overloaded or hangs, or the network drops packets: try again, or reboot the host",
    )


def _check_server(connection: Connection, host: Resolved) -> None:
    """Check that an SSH server answers, directly, behind a jump host or behind a proxy command."""
    if host.jump:
        _check_jump(connection, host)
    elif not host.proxy_command:
        check_reach(host)
        check_banner(host)


def _shake_hands(host: Resolved, kinds: Sequence[str]) -> Transport:
    import paramiko

    try:
        return keys.start_handshake(host, kinds)
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Problem(
            errors.HANDSHAKE,
            f"{host.host} closed the connection during SSH's handshake ({error})",
            "try again later: the server may be overloaded (MaxStartups), or have blocked this address for a while (fail2ban)",
        ) from error


def _check_all_steps(connection: Connection, host: Resolved) -> None:
    """Raise the Problem of the first step that fails."""
    _check_server(connection, host)
    known = keys.known_keys(host)
    transport = _shake_hands(host, [each.key.kind for each in known])
    try:
        check_host_key(connection.name, host, keys.host_key_of(transport), known)
        methods = _auth_methods(transport, host.user)
    finally:
        transport.close()
    _check_login(connection, host, methods)


def check_name(connection: Connection) -> None:
    """Raise HostUnreachable when no machine has the name that ssh would look up. A jump host may know more names than this one."""
    try:
        host = config.resolve(connection)
    except UsageError:
        return  # the first question says so
    if host.jump or host.proxy_command:
        return
    try:
        _addresses(host)
    except Problem as problem:
        raise _error(connection.name, problem) from problem


def _addresses(host: Resolved) -> list[Any]:
    try:
        return keys.run_within(REACH_TIMEOUT, lambda: socket.getaddrinfo(host.host, host.port, type=socket.SOCK_STREAM))
    except (socket.gaierror, TimeoutError, UnicodeError) as error:
        raise Problem(
            errors.NO_NAME,
            f"no machine is known by the name `{host.host}`",
            "check the name's spelling, and that you are online (VPN?); `gpurun host ls` lists the hosts you added",
        ) from error


def check_reach(host: Resolved) -> None:
    """Check that the name resolves and something listens on the port."""
    addresses = _addresses(host)
    failure: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(REACH_TIMEOUT / len(addresses))
                probe.connect(address)
                return
        except OSError as error:
            failure = error
    raise _unreachable(host, failure or OSError()) from failure


def _unreachable(host: Resolved, failure: OSError) -> Problem:
    at = f"{host.host} port {host.port}"
    if isinstance(failure, ConnectionRefusedError):
        return Problem(
            errors.REFUSED,
            f"nothing listens on {at}",
            "check the port (rented boxes change theirs at each start), and that sshd runs on the host",
        )
    if isinstance(failure, TimeoutError):
        return Problem(
            errors.TIMEOUT,
            f"{at} does not answer",
            "check that the host is up; a firewall, or a VPN that is off, has the same effect",
        )
    reason = errno.errorcode.get(failure.errno or 0, "")
    if reason in ("ENETUNREACH", "EHOSTUNREACH", "EHOSTDOWN", "ENETDOWN"):
        return Problem(
            errors.NO_ROUTE, f"there is no route to {at}", "check that you are online, and that the VPN is on"
        )
    return Problem(errors.REFUSED, f"could not connect to {at}: {failure}", "check the address and the port")


def check_banner(host: Resolved) -> None:
    """Check that the server on the port speaks SSH."""
    banner = b""
    try:
        with socket.create_connection((host.host, host.port), timeout=REACH_TIMEOUT) as probe:
            while len(banner) < 4096 and b"SSH-" not in banner:
                part = probe.recv(1024)
                if not part:
                    break
                banner += part
    except OSError:
        pass  # what came so far decides
    if b"SSH-" in banner:
        return
    at = f"{host.host} port {host.port}"
    if banner:
        first = banner.splitlines()[0][:60].decode("utf-8", "replace")
        raise Problem(errors.NO_SSH, f"{at} is not an SSH server (it sends {first!r})", "check the port")
    raise Problem(
        errors.SILENT,
        f"{at} accepts connections and sends nothing",
        "check that it is the SSH port; an SSH server that is overloaded, or has blocked this address for a while "
        "(fail2ban), does this too",
    )


def check_host_key(name: str, host: Resolved, key: HostKey, known: Sequence[KnownKey]) -> None:
    """Check that known_hosts has this key."""
    if any(each.marker == "@cert-authority" for each in known):
        return  # ssh checks certificates itself
    if any(each.marker == "@revoked" and each.key == key for each in known):
        raise Problem(
            errors.KEY_REVOKED, f"the key of {name} is marked as revoked", "do not connect; ask the host's owner"
        )
    if any(each.key == key for each in known):
        return
    same_kind = [each for each in known if each.key.kind == key.kind and not each.marker]
    if not same_kind:
        raise Problem(
            errors.KEY_UNKNOWN,
            f"the key of {name} is not known yet: {key.name} {key.fingerprint}",
            "compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the host (a rental "
            "panel may show it).\n"
            f"The same? On a terminal: gpurun host add {name}\n"
            f"Elsewhere: gpurun host add {name} --accept-key {key.fingerprint}",
        )
    old = same_kind[0]
    raise Problem(
        errors.KEY_CHANGED,
        f"the key of {name} has CHANGED: {key.name} {key.fingerprint}, known was {old.key.fingerprint} "
        f"({old.file}:{old.line})",
        "somebody may intercept the connection. If the host was reinstalled (or a rented address now belongs to another "
        "host), remove the old key and check the new one:\n"
        f"{shlex.join(['ssh-keygen', '-R', host.known_as, '-f', old.file])}\n"
        f"gpurun host add {name}",
    )


def _auth_methods(transport: Transport, user: str) -> list[str]:
    """Return the server's authentication methods for the user: `publickey`, `password`, ..."""
    import paramiko

    try:
        transport.auth_none(user)
    except paramiko.BadAuthenticationType as refused:
        return list(refused.allowed_types)
    except (paramiko.SSHException, OSError, EOFError):
        return []
    return ["none"]


def _check_login(connection: Connection, host: Resolved, methods: list[str]) -> None:
    """Raise a Problem unless the host lets the user in now: everything before the login works, and ssh failed."""
    quiet = Connection(connection.name, connection.address, interactive=False)
    if quiet.run("exit 0", timeout=keys.STEP_TIMEOUT, shared=False).code != CONNECTION_FAILED:
        return
    offered = [path for path in host.identity_files if Path(path).is_file()]
    locked = [path for path in offered if _has_passphrase(path)]
    in_agent = keys.agent_keys()
    shown = [*(f"{path}" for path in offered), *([f"{len(in_agent)} of your agent"] if in_agent else [])]
    accepted = ", ".join(methods) or "no known method"
    steps = []
    if "password" in methods or "keyboard-interactive" in methods:
        steps.append(f"install your key; this asks for the password once: gpurun host add {connection.name}")
        steps.append("or run the command on a terminal, where ssh can ask for the password")
    else:
        steps.append(
            f"check that `{host.user}` is the right user, and that ~{host.user}/.ssh/authorized_keys on the host has your key"
        )
    if locked and not in_agent:
        steps.append(f"{locked[0]} has a passphrase: ssh-add {locked[0]}")
    raise Problem(
        errors.NOT_LET_IN,
        f"{connection.name} did not let `{host.user}` in. It accepts: {accepted}; offered: {', '.join(shown) or 'no key'}",
        "\n".join(steps),
    )


def _has_passphrase(path: str) -> bool:
    """Return whether the private key has a passphrase: then ssh-keygen cannot read it without one."""
    return process.run(["ssh-keygen", "-y", "-P", "", "-f", path], timeout=5).code != 0


def _check_jump(connection: Connection, host: Resolved) -> None:
    """Check that the jump host lets us in and reaches the host behind it."""
    first = (host.jump or "").split(",")[0]
    jump = Connection(first, Address.parse(first), interactive=False)
    if jump.run("exit 0", timeout=keys.STEP_TIMEOUT, shared=False).code == CONNECTION_FAILED:
        error = explain(jump)
        what = f"could not connect to {first}, the jump host of {connection.name}: {error.what}"
        raise Problem(error.code or errors.JUMP, what, error.next_step)
    banner = process.run(keys.proxy_argv(host), timeout=keys.STEP_TIMEOUT * 2).stdout
    if b"SSH-" not in banner:
        raise Problem(
            errors.BEHIND_JUMP,
            f"{host.jump} lets us in, but {host.host} port {host.port} does not answer behind it",
            f"check that {host.host} is up, and that {host.jump} can resolve this name",
        )


def _ssh_arguments(address: Address) -> list[str]:
    return [*address.options(), address.host]
