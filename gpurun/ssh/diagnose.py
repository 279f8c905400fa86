"""Why a connection failed, and the exact repair. Asked only after ssh has failed, and never longer than half a minute.

It goes the way of the connection again, step by step: name, port, what answers there, its key, our keys. The first
step that fails is the answer. What ssh printed is shown and never decided by.
"""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun import process
from gpurun.errors import NO_NAME, ContactLost, GpurunError, HostUnreachable
from gpurun.ssh import config, keys
from gpurun.ssh.config import Resolved
from gpurun.ssh.keys import HostKey, KnownKey
from gpurun.ssh.openssh import CONNECTION_FAILED, Address, Connection

if TYPE_CHECKING:
    from paramiko import Transport

REACH_IN = 5.0  # seconds for a name, and for a port


class Problem(Exception):
    """The step that failed: a word for tests and callers, what is wrong, and how to mend it."""

    def __init__(self, code: str, what: str, next_step: str) -> None:
        super().__init__(what)
        self.code, self.what, self.next_step = code, what, next_step


def explain(connection: Connection, said: str = "") -> GpurunError:
    """What keeps us from `connection`'s host, as an error to raise. `said`: ssh's own last line."""
    try:
        host = config.resolve(connection)
        keys.within(keys.ALL_IN, lambda: _walk(connection, host))
        problem = Problem(
            "unsteady",
            f"ssh could not connect to {connection.name}, though the host answers now",
            f"try again; if it stays, `ssh -v {shlex.join(_typed(connection.address))} true` shows each step",
        )
    except Problem as found:
        problem = found
    except GpurunError as error:
        return error
    except (TimeoutError, process.TimedOut):
        problem = _silent(connection.name)
    return _error(connection.name, problem, said)


def look(connection: Connection, host: Resolved, *, wanted: str | None = None) -> tuple[HostKey, GpurunError | None]:
    """The host's key, and what is wrong with it: unknown, changed or revoked. Raises HostUnreachable when there is none to see.

    Of a host with several keys: one that is known, else the one with the fingerprint `wanted`, else what ssh would take.
    """
    try:
        return keys.within(keys.ALL_IN, lambda: _look(connection, host, wanted))
    except Problem as problem:
        raise _error(connection.name, problem) from problem
    except (TimeoutError, process.TimedOut):
        raise _error(connection.name, _silent(connection.name)) from None


def _look(connection: Connection, host: Resolved, wanted: str | None) -> tuple[HostKey, GpurunError | None]:
    _reach(connection, host)
    known = keys.known_keys(host)
    kinds = [each.key.kind for each in known]
    key = _shown_key(host, kinds)
    try:
        check_host_key(connection.name, host, key, known)
    except Problem as problem:
        if problem.code == "key_unknown" and wanted is not None:
            key = _key_with(host, wanted) or key
        return key, _error(connection.name, problem)
    return key, None


def _key_with(host: Resolved, fingerprint: str) -> HostKey | None:
    """That key of the host's, if it has it."""
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"):
        key = _shown_key(host, [kind])
        if key.fingerprint == fingerprint:
            return key
    return None


def _shown_key(host: Resolved, kinds: Sequence[str]) -> HostKey:
    transport = _shake_hands(host, kinds)
    try:
        return keys.host_key_of(transport)
    finally:
        transport.close()


def _error(name: str, problem: Problem, said: str = "") -> HostUnreachable:
    where = f"{name}\nssh said: {said}" if said else name
    kind = ContactLost if problem.code == "unsteady" else HostUnreachable
    return kind(problem.what, problem.next_step, where=where, code=problem.code)


def _silent(name: str) -> Problem:
    return Problem(
        "silent",
        f"{name} takes connections and then falls silent",
        "the host is overloaded or hangs, or something on the way swallows packets: try again, or reboot it",
    )


def _reach(connection: Connection, host: Resolved) -> None:
    """An SSH server answers, at the end of whatever way leads there."""
    if host.jump:
        _check_jump(connection, host)
    elif not host.proxy_command:
        check_reach(host)
        check_banner(host)


def _shake_hands(host: Resolved, kinds: Sequence[str]) -> Transport:
    import paramiko

    try:
        return keys.start(host, kinds)
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Problem(
            "handshake",
            f"{host.host} broke off in the middle of SSH's handshake ({error})",
            "the server may be overloaded (MaxStartups), or have blocked this address for a while (fail2ban)",
        ) from error


def _walk(connection: Connection, host: Resolved) -> None:
    """Raise the Problem of the first step that fails."""
    _reach(connection, host)
    known = keys.known_keys(host)
    transport = _shake_hands(host, [each.key.kind for each in known])
    try:
        check_host_key(connection.name, host, keys.host_key_of(transport), known)
        ways = _ways_in(transport, host.user)
    finally:
        transport.close()
    _check_login(connection, host, ways)


def check_reach(host: Resolved) -> None:
    """The name resolves, and something listens on the port."""
    try:
        found = keys.within(REACH_IN, lambda: socket.getaddrinfo(host.host, host.port, type=socket.SOCK_STREAM))
    except (socket.gaierror, TimeoutError, UnicodeError) as error:
        raise Problem(
            NO_NAME,
            f"no machine is known by the name `{host.host}`",
            "check the name's spelling, and that you are online (VPN?); `gpurun host ls` lists the hosts you added",
        ) from error
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(REACH_IN / len(found))
                probe.connect(address)
                return
        except OSError as error:
            failure = error
    raise _unreachable(host, failure or OSError()) from failure


def _unreachable(host: Resolved, failure: OSError) -> Problem:
    at = f"{host.host} port {host.port}"
    if isinstance(failure, ConnectionRefusedError):
        return Problem(
            "refused",
            f"nothing listens on {at}",
            "check the port (rented boxes change theirs at each start), and that sshd runs on the host",
        )
    if isinstance(failure, TimeoutError):
        return Problem(
            "timeout",
            f"{at} does not answer",
            "is the host up? A firewall, or a VPN that is off, looks the same",
        )
    reason = errno.errorcode.get(failure.errno or 0, "")
    if reason in ("ENETUNREACH", "EHOSTUNREACH", "EHOSTDOWN", "ENETDOWN"):
        return Problem("no_route", f"there is no way to {at} from here", "are you online, and is the VPN on?")
    return Problem("refused", f"no connection to {at}: {failure}", "check address and port")


def check_banner(host: Resolved) -> None:
    """What listens there speaks SSH."""
    heard = b""
    try:
        with socket.create_connection((host.host, host.port), timeout=REACH_IN) as probe:
            while len(heard) < 4096 and b"SSH-" not in heard:
                part = probe.recv(1024)
                if not part:
                    break
                heard += part
    except OSError:
        pass  # what came, or did not come, tells it
    if b"SSH-" in heard:
        return
    at = f"{host.host} port {host.port}"
    if heard:
        first = heard.splitlines()[0][:60].decode("utf-8", "replace")
        raise Problem("no_ssh", f"{at} is no SSH server (it says {first!r})", "check the port")
    raise Problem(
        "silent",
        f"{at} takes connections and says nothing",
        "is it the SSH port? An SSH server that is overloaded, or has blocked this address for a while "
        "(fail2ban), does this too",
    )


def check_host_key(name: str, host: Resolved, key: HostKey, known: Sequence[KnownKey]) -> None:
    """The host's key is the one that is known."""
    if any(each.marker == "@cert-authority" for each in known):
        return  # ssh judges certificates by itself
    if any(each.marker == "@revoked" and each.key == key for each in known):
        raise Problem("key_revoked", f"the key of {name} is marked as revoked", "do not connect; ask the host's owner")
    if any(each.key == key for each in known):
        return
    same_kind = [each for each in known if each.key.kind == key.kind and not each.marker]
    if not same_kind:
        raise Problem(
            "key_unknown",
            f"the key of {name} is not known yet: {key.name} {key.fingerprint}",
            "compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the host (a rental "
            "panel may show it).\n"
            f"The same? On a terminal: gpurun host add {name}\n"
            f"Elsewhere: gpurun host add {name} --accept-key {key.fingerprint}",
        )
    old = same_kind[0]
    raise Problem(
        "key_changed",
        f"the key of {name} has CHANGED: {key.name} {key.fingerprint}, known was {old.key.fingerprint} "
        f"({old.file}:{old.line})",
        "somebody may be between you and the host. If the machine was set up anew (or a rented address went to another "
        "box), forget the old key and look at the new one:\n"
        f"{shlex.join(['ssh-keygen', '-R', host.known_as, '-f', old.file])}\n"
        f"gpurun host add {name}",
    )


def _ways_in(transport: Transport, user: str) -> list[str]:
    """How the server would let a user in: `publickey`, `password`, ..."""
    import paramiko

    try:
        transport.auth_none(user)
    except paramiko.BadAuthenticationType as refused:
        return list(refused.allowed_types)
    except (paramiko.SSHException, OSError, EOFError):
        return []
    return ["none"]


def _check_login(connection: Connection, host: Resolved, ways: list[str]) -> None:
    """ssh failed and everything up to here is well: the host did not let the user in, unless it does now."""
    quiet = Connection(connection.name, connection.address, interactive=False)
    if quiet.run("exit 0", timeout=keys.WORD_IN, shared=False).code != CONNECTION_FAILED:
        return
    offered = [path for path in host.identity_files if Path(path).is_file()]
    locked = [path for path in offered if _has_passphrase(path)]
    in_agent = keys.agent_keys()
    shown = [*(f"{path}" for path in offered), *([f"{len(in_agent)} of your agent"] if in_agent else [])]
    takes = ", ".join(ways) or "no way that we know"
    steps = []
    if "password" in ways or "keyboard-interactive" in ways:
        steps.append(f"put your key there, it asks for the password once: gpurun host add {connection.name}")
        steps.append("or run this on a terminal: ssh asks for the password there")
    else:
        steps.append(
            f"is `{host.user}` the right user, and has the host your key? It belongs into ~{host.user}/.ssh/authorized_keys"
        )
    if locked and not in_agent:
        steps.append(f"{locked[0]} has a passphrase: ssh-add {locked[0]}")
    raise Problem(
        "not_let_in",
        f"{connection.name} did not let `{host.user}` in. It takes: {takes}; offered: {', '.join(shown) or 'no key'}",
        "\n".join(steps),
    )


def _has_passphrase(path: str) -> bool:
    """Whether the private key wants a passphrase; ssh-keygen can read it without one, or not."""
    return process.run(["ssh-keygen", "-y", "-P", "", "-f", path], timeout=5).code != 0


def _check_jump(connection: Connection, host: Resolved) -> None:
    """The host that is jumped through lets us in, and reaches the host behind it."""
    first = (host.jump or "").split(",")[0]
    jump = Connection(first, Address.parse(first), interactive=False)
    if jump.run("exit 0", timeout=keys.WORD_IN, shared=False).code == CONNECTION_FAILED:
        found = explain(jump)
        what = f"no connection to {first}, which is on the way to {connection.name}: {found.what}"
        raise Problem(found.code or "jump", what, found.next_step)
    heard = process.run(keys.proxy_argv(host), timeout=keys.WORD_IN * 2).stdout
    if b"SSH-" not in heard:
        raise Problem(
            "behind_jump",
            f"{host.jump} lets us in, but {host.host} port {host.port} does not answer behind it",
            f"is {host.host} up, and is it the name that {host.jump} knows it by?",
        )


def _typed(address: Address) -> list[str]:
    return [*address.options(), address.host]
