"""The doctor: what a host needs for jobs, what it has, and how to mend what is missing. The agent looks there; the
connection, forwards and the laptop's own rsync are tried from here."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun import process
from gpurun.errors import GpurunError, HostUnreachable
from gpurun.hosts.findings import FAIL, OK, WARN, Finding, examine, of_rsync
from gpurun.remote.wire import Wire
from gpurun.ssh import openssh
from gpurun.ssh.openssh import Connection

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import CheckAnswer, Echo

CHECK_IN = 60.0  # seconds: nvidia-smi, the engine and a search for Pythons may each take their time
ECHO_IN = 5.0


@dataclass(frozen=True)
class CheckResult:
    """All findings; `answer` is the agent's, None when the host was out of reach."""

    host: str
    findings: tuple[Finding, ...]
    answer: CheckAnswer | None
    failure: HostUnreachable | None = None

    @property
    def ok(self) -> bool:
        return all(each.status != FAIL for each in self.findings)


def check(wire: Wire, tell: Callable[[Finding], None] = lambda finding: None) -> CheckResult:
    """Examine a host; each finding is told as it is made. Never raises for a sick host."""
    findings: list[Finding] = []

    def note(finding: Finding) -> None:
        findings.append(finding)
        tell(finding)

    note(laptop_rsync())
    try:
        began = time.time()
        with wire.stream("check", {}, timeout=CHECK_IN) as stream:
            note(connection(wire.connection))
            echo = stream.answer["echo"]
            for finding in forwards(wire.connection, echo) if echo is not None else ():
                note(finding)
            for finding in examine(wire.host, stream.answer, noise=stream.noise, asked=(began, time.time())):
                note(finding)
            return CheckResult(wire.host, tuple(findings), stream.answer)
    except HostUnreachable as error:
        note(Finding("connection", FAIL, error.what, _beyond_this(error, wire.connection)))
        return CheckResult(wire.host, tuple(findings), None, error)
    except GpurunError as error:
        note(Finding("agent", FAIL, error.what, error.next_step))
        return CheckResult(wire.host, tuple(findings), None)


def _beyond_this(error: HostUnreachable, used: Connection) -> str:
    """The next step of `error`, unless that is the check which found it."""
    if "gpurun host check" not in error.next_step:
        return error.next_step
    return f"try again; where it stops shows: {shlex.join([*openssh.program(), '-v', *used.address.options(), used.address.host, 'true'])}"


def laptop_rsync() -> Finding:
    from gpurun.sync import rsync as ours

    try:
        version = ours.check_local()
    except GpurunError as error:
        return Finding("rsync here", FAIL, error.what, error.next_step)
    return of_rsync("rsync here", version)


def connection(used: Connection) -> Finding:
    shared = used.is_up()
    began = time.monotonic()
    answered = shared and used.passes()
    turn = f"{(time.monotonic() - began) * 1000:.0f} ms a command"
    if answered:
        return Finding("connection", OK, f"ssh {used.address}, one connection shared by all commands, {turn}")
    return Finding(
        "connection",
        WARN,
        f"ssh {used.address}; the connection is not shared, so each command logs in anew",
        "the host's sshd may forbid several sessions on one connection: MaxSessions 10 in its sshd_config",
    )


def forwards(used: Connection, echo: Echo) -> Iterator[Finding]:
    """Open a real forward to a port and to a Unix socket on the host, and pass bytes through."""
    port = f"127.0.0.1:{echo['port']}"
    if _passes(used, port):
        yield Finding("port forward", OK, "bytes went to a port of the host and back")
    else:
        mend = "`AllowTcpForwarding yes` in the host's /etc/ssh/sshd_config; jobs run without it, tunnels do not"
        yield Finding("port forward", WARN, "the host's sshd lets no port be forwarded", mend)
    if _passes(used, echo["socket"]):
        yield Finding("socket forward", OK, "bytes went to a Unix socket of the host and back")
    else:
        mend = "`AllowStreamLocalForwarding yes` in the host's /etc/ssh/sshd_config; jobs run without it"
        yield Finding("socket forward", WARN, "the host's sshd lets no Unix socket be forwarded", mend)


def _passes(used: Connection, target: str) -> bool:
    """Return whether an echo at `target` on the host answers through a forward of the shared connection."""
    ours = openssh.socket_folder() / f"f{time.monotonic_ns() % 10**9}"
    forward = f"{ours}:{target}"
    try:
        if process.run(used.control_argv("forward", "-L", forward), timeout=ECHO_IN).code != 0:
            return False
        return _echoes(ours)
    except process.TimedOut:
        return False
    finally:
        with suppress(process.TimedOut):
            process.run(used.control_argv("cancel", "-L", forward), timeout=ECHO_IN)
        ours.unlink(missing_ok=True)


def _echoes(path: Path) -> bool:
    word = b"gpurun"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(ECHO_IN)
            client.connect(str(path))
            client.sendall(word)
            return client.recv(len(word)) == word
    except OSError:
        return False
