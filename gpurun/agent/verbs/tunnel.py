"""`tunnel`: keep the forwards of a tunnel open, and report the state of the runs behind it, until the tunnel closes.

Request: `{tunnel: id, listeners: [{name, run or null, service: bool, port or null}], loopback: bool}`. A listener leads to the
service that a run is, to a port of the run's loopback, or (without a run) to a port of the host.
Answer: `{listeners: [{name, socket or null, port or null, token or null}], probe: path or port, runs: [RunRecord]}`: where the
host's sshd must forward to. The probe greets each client, so that the laptop sees at once when sshd refuses to forward.

Then the verb sends a state frame for each run, and another one whenever the run changes; that of a service also has `ready`.
The laptop sends a line every few seconds, and the verb answers with a beat. When the laptop falls silent or disconnects, this
process and everything that it started end.
"""

from __future__ import annotations

import functools
import glob
import os
import select
import socket
import subprocess
import time
from typing import TYPE_CHECKING, List, Optional, Tuple, Union

from .. import loopback, programs, runtimes
from .. import vocabulary as words
from ..files import remove
from ..host import locks
from ..lifecycle import reconcile, records
from ..paths import HostPaths, RunPaths
from ..setup import services, sockets
from ..state import jobs, origin

if TYPE_CHECKING:
    from ..frames import Frames
    from ..schema.answers import ForwardTarget, TunnelAnswer
    from ..schema.job import AttemptJob
    from ..schema.requests import TunnelListener, TunnelRequest

CHECK_INTERVAL = 0.5  # seconds
LAPTOP_TIMEOUT = 30.0  # seconds without a line of the laptop
READY_REQUEST = (
    b"GET /api HTTP/1.0\r\nHost: localhost\r\n\r\n"  # Jupyter answers it without a token, TensorBoard with 404
)
RELAY_PAUSE = 2.0  # seconds before a relay is started again, and for a relay to end


def answer(request: TunnelRequest, host: HostPaths) -> TunnelAnswer:
    runs = records.find_all(host, _run_ids(request))
    for run in runs:
        reconcile.reconcile_run(host, run)
    _remove_sockets_of_dead_processes(request)
    _remove_sockets(request)  # of an earlier process with our pid
    listeners = [_forward_target(host, request, index) for index in range(len(request["listeners"]))]
    probe = _socket_path(request, "probe") if any(listener["socket"] for listener in listeners) else None
    return {
        "probe": loopback.greet(probe),
        "listeners": listeners,
        "runs": [records.record_of(run) for run in runs],
    }


def _run_ids(request: TunnelRequest) -> List[str]:
    return sorted({listener["run"] for listener in request["listeners"] if listener["run"]})


def _forward_target(host: HostPaths, request: TunnelRequest, index: int) -> ForwardTarget:
    """Return where sshd must forward the listener's connections to."""
    listener = request["listeners"][index]
    answered: ForwardTarget = {"name": listener["name"], "socket": None, "port": listener["port"], "token": None}
    if listener["run"] is None:
        return answered
    run, job = _find_run(host, listener["run"])
    if listener["port"] is None:
        name, answered["token"] = services.kind(job) or "", services.token(run)
    elif _relay_argv(run, job, listener["port"], request["tunnel"]) is not None:
        name = _relay_name(listener["port"], request["tunnel"])
    else:
        return answered
    path = os.path.join(sockets.make(run, job), name)
    connect = functools.partial(sockets.connect, run, job, name)
    if request.get("loopback"):
        return {**answered, "port": int(loopback.listen(connect))}
    if job["host"]["runtime"] != "bare":  # the job controls what is at that path, and could put a link there
        path = _socket_path(request, "front", index)
        loopback.listen(connect, path)
    return {**answered, "port": None, "socket": path}


def _find_run(host: HostPaths, run_id: str) -> Tuple[RunPaths, AttemptJob]:
    run = records.find(host, run_id)
    records.refuse_newer(run)
    job = jobs.of_attempt_or_empty(run)
    origin.refuse(run, job)
    return run, job


def _relay_name(port: int, tunnel: str) -> str:
    """Return a name that only this process uses: the process of a broken connection may clean up after we have started."""
    return "%d.%s.%d" % (port, tunnel, os.getpid())


def _relay_argv(run: RunPaths, job: AttemptJob, port: int, tunnel: str) -> Optional[List[str]]:
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    return runtime.relay(run, job, _relay_name(port, tunnel), port)


def stream(request: TunnelRequest, host: HostPaths, out: Frames) -> None:
    """Report until the laptop disconnects, or every run has ended."""
    listeners = request["listeners"]
    relays = [
        _Relay(host, listener["run"], listener["port"], request["tunnel"])
        for listener in listeners
        if listener["run"] is not None and listener["port"] is not None
    ]
    watched_runs = [_WatchedRun(host, run_id, listeners) for run_id in _run_ids(request)]
    last_line = time.monotonic()
    try:
        while time.monotonic() < last_line + LAPTOP_TIMEOUT:
            for watched in watched_runs:
                watched.report_change(out)
            for relay in relays:
                relay.ensure_running()
            if watched_runs and not any(watched.is_live for watched in watched_runs):
                out.end(watched_runs[-1].record)
                return
            out.beat()
            if select.select([0], [], [], CHECK_INTERVAL)[0]:
                if not os.read(0, 4096):
                    return
                last_line = time.monotonic()
                out.beat(now=True)
    finally:
        for relay in relays:
            relay.stop()
        _remove_sockets(request)


def _socket_path(request: TunnelRequest, kind: str, index: int = 0, pid: Union[int, str, None] = None) -> str:
    """Return the path of a socket of this process, or of the process `pid`."""
    name = "%s%s-%s.%s.%d" % (sockets.PREFIX, kind, request["tunnel"], os.getpid() if pid is None else pid, index)
    return os.path.join(locks.folder(), name)


def _remove_sockets(request: TunnelRequest, pid: Union[int, str, None] = None) -> None:
    remove(_socket_path(request, "probe", pid=pid))
    for index in range(len(request["listeners"])):
        remove(_socket_path(request, "front", index, pid))


def _remove_sockets_of_dead_processes(request: TunnelRequest) -> None:
    """Remove the sockets of this tunnel's killed processes: nothing listens on their probes any more."""
    for path in glob.glob(_socket_path(request, "probe", pid="*")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1.0)
            try:
                client.connect(path)
            except ConnectionRefusedError:
                _remove_sockets(request, path.split(".")[-2])
            except OSError:  # the socket was removed meanwhile
                pass


class _WatchedRun:
    """One run behind the tunnel."""

    def __init__(self, host: HostPaths, run_id: str, listeners: List[TunnelListener]):
        self.host, self.run = host, host.run(run_id)
        self.is_service = any(listener["service"] for listener in listeners if listener["run"] == run_id)
        self.record = records.record_of(self.run)
        self.last_reconciled = time.monotonic()
        self.last_reported = ""

    @property
    def is_live(self) -> bool:
        """Return whether the run may still go on. A run that cannot be read counts as live."""
        return bool(self.record["live"]) or self.record["state"] == words.UNKNOWN

    def report_change(self, out: Frames) -> None:
        """Send the run's record when its state, its reason or its readiness has changed."""
        if time.monotonic() > self.last_reconciled + 10 * CHECK_INTERVAL:
            self.last_reconciled = time.monotonic()
            reconcile.reconcile_run(self.host, self.run)
        ready = self.record.get("ready") or (self.is_service and _service_answers(self.run))
        self.record = {**records.record_of(self.run), "ready": bool(ready)}
        summary = "%s %s %s" % (self.record["state"], self.record["reason"], ready)
        if summary != self.last_reported:
            self.last_reported = summary
            out.state(self.record)


def _service_answers(run: RunPaths) -> bool:
    """Return whether the service answers a request. A port of the user is never tried: a debugger takes one connection."""
    job = jobs.read_or_empty(run)
    try:
        with sockets.connect(run, job, services.kind(job) or "", timeout=1.0) as client:
            client.sendall(READY_REQUEST)  # a service may accept connections long before it can answer
            return bool(client.recv(1))
    except OSError:
        return False


class _Relay:
    """The program in a container that leads from a socket to a port of the job."""

    def __init__(self, host: HostPaths, run_id: str, port: int, tunnel: str):
        self.run, job = _find_run(host, run_id)
        self.path = os.path.join(sockets.folder(self.run), _relay_name(port, tunnel))
        self.argv = _relay_argv(self.run, job, port, tunnel)
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.next_start = 0.0

    def ensure_running(self) -> None:
        is_running = self.process is not None and self.process.poll() is None
        if self.argv is None or is_running or time.monotonic() < self.next_start:
            return
        self.next_start = time.monotonic() + RELAY_PAUSE
        remove(self.path)
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()  # this ends the relay in the container too, which a signal does not reach
            try:
                self.process.wait(RELAY_PAUSE)
            except subprocess.TimeoutExpired:
                pass
            programs.kill(self.process)
        remove(self.path)
