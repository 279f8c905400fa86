"""`attend`: keep the forwards to the services of a tunnel open, and report the state of their runs, until the tunnel closes.

Request: `{tunnel: name, doors: [{name, run or null, service: bool, port or null}], loopback: bool}`. A door leads to the
service that a run is, to a port of a run's own loopback, or (without a run) to a port of the host.
Answer: `{doors: [{name, socket or null, port or null, token or null}], probe: path or port, runs: [RunRecord]}`: where the
host's sshd is to forward to. The probe greets whoever connects, so that a forwarding that is refused shows at once.

Then a state frame for each run, and whenever it changes; a service's has `ready` besides. The laptop writes a line now and
then, which is answered by a beat: one that fell silent, or went away, ends this process and all that it started.
"""

from __future__ import annotations

import functools
import glob
import os
import select
import socket
import subprocess
import time
from typing import Any, Dict, List, Optional, Union

from .. import loopback, programs, runtimes
from .. import vocabulary as words
from ..files import read_json, remove
from ..host import locks
from ..lifecycle import reconcile, records
from ..paths import HostPaths, RunPaths
from ..setup import services, sockets
from ..state import origin

TICK = 0.5  # seconds between two looks
SILENCE = 30.0  # seconds without a word of the laptop
QUESTION = b"GET /api HTTP/1.0\r\nHost: localhost\r\n\r\n"  # Jupyter answers it without a token, TensorBoard with 404
GENTLE = 2.0  # seconds before what leads into a container is started again

Door = Dict[str, Any]


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    runs = records.find_all(host, sorted({door["run"] for door in request["doors"] if door["run"]}))
    for run in runs:
        reconcile.reconcile_run(host, run)
    _sweep(request)
    _clean_up(request)  # of one that had this number
    doors = [_door(host, request, at) for at in range(len(request["doors"]))]
    probe = _path(request, "probe") if any(door["socket"] for door in doors) else None
    return {"probe": loopback.greet(probe), "doors": doors, "runs": [records.record_of(run) for run in runs]}


def _door(host: HostPaths, request: Dict[str, Any], at: int) -> Door:
    door = request["doors"][at]
    told = {"name": door["name"], "socket": None, "port": door["port"], "token": None}
    if door["run"] is None:
        return told
    run, job = _run_of(host, door)
    if door["service"]:
        name, told["token"] = services.kind(job) or "", services.token(run)
    elif _relay_argv(run, job, door, request["tunnel"]) is not None:
        name = _relay_name(door, request["tunnel"])
    else:
        return told
    path = os.path.join(sockets.make(run, job), name)
    lead_on = functools.partial(sockets.connect, run, job, name)
    if request.get("loopback"):
        return {**told, "port": loopback.listen(lead_on)}
    if job["host"]["runtime"] != "bare":  # where the job decides what lies at that path
        path = _path(request, "front", at)
        loopback.listen(lead_on, path)
    return {**told, "port": None, "socket": path}


def _run_of(host: HostPaths, door: Door) -> "tuple[RunPaths, Dict[str, Any]]":
    run = records.find(host, door["run"])
    records.refuse_newer(run)
    job = read_json(run.job) or {}
    origin.refuse(run, job)
    return run, job


def _relay_name(door: Door, tunnel: str) -> str:
    """Of this process alone: one of a connection that broke may not know yet, and cleans up after the next has begun."""
    return "%d.%s.%d" % (door["port"], tunnel, os.getpid())


def _relay_argv(run: RunPaths, job: Dict[str, Any], door: Door, tunnel: str) -> Optional[List[str]]:
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    return runtime.relay(run, job, _relay_name(door, tunnel), int(door["port"]))


def stream(request: Dict[str, Any], host: HostPaths, out: Any) -> None:
    """Until the laptop goes away, or every run has ended."""
    ports = [door for door in request["doors"] if door["run"] and not door["service"]]
    relays = [_Relay(host, door, request["tunnel"]) for door in ports]
    watched = [
        _Watched(host, name, request["doors"]) for name in sorted({d["run"] for d in request["doors"] if d["run"]})
    ]
    heard = time.monotonic()
    try:
        while time.monotonic() < heard + SILENCE:
            for one in watched:
                one.look(out)
            for relay in relays:
                relay.keep()
            if watched and not any(one.live for one in watched):
                out.end(watched[-1].record)
                return
            out.beat()
            if select.select([0], [], [], TICK)[0]:
                if not os.read(0, 4096):
                    return
                heard = time.monotonic()
                out.beat(now=True)
    finally:
        for relay in relays:
            relay.end()
        _clean_up(request)


def _path(request: Dict[str, Any], what: str, at: int = 0, pid: Union[int, str, None] = None) -> str:
    """Of a socket of this process's own."""
    name = "%s%s-%s.%s.%d" % (sockets.PREFIX, what, request["tunnel"], os.getpid() if pid is None else pid, at)
    return os.path.join(locks.folder(), name)


def _clean_up(request: Dict[str, Any], pid: Union[int, str, None] = None) -> None:
    remove(_path(request, "probe", pid=pid))
    for at in range(len(request["doors"])):
        remove(_path(request, "front", at, pid))


def _sweep(request: Dict[str, Any]) -> None:
    """Remove what killed ones of this tunnel left; their probes tell that they are gone."""
    for path in glob.glob(_path(request, "probe", pid="*")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as looking:
            looking.settimeout(1.0)
            try:
                looking.connect(path)
            except ConnectionRefusedError:
                _clean_up(request, path.split(".")[-2])
            except OSError:  # gone meanwhile
                pass


class _Watched:
    """One run, told of when it changes."""

    def __init__(self, host: HostPaths, run_id: str, doors: List[Door]):
        self.host, self.run = host, host.run(run_id)
        self.service = any(door["service"] for door in doors if door["run"] == run_id)
        self.record: Dict[str, Any] = {}
        self.tended = time.monotonic()
        self.told = ""

    @property
    def live(self) -> bool:
        """Return whether the run may still go on: one that cannot be read has not ended for that."""
        return bool(self.record["live"]) or self.record["state"] == words.UNKNOWN

    def look(self, out: Any) -> None:
        if time.monotonic() > self.tended + 10 * TICK:
            self.tended = time.monotonic()
            reconcile.reconcile_run(self.host, self.run)
        ready = self.record.get("ready") or (self.service and _answers(self.run))
        self.record = {**records.record_of(self.run), "ready": bool(ready)}
        what = "%s %s %s" % (self.record["state"], self.record["reason"], ready)
        if what != self.told:
            self.told = what
            out.state(self.record)


def _answers(run: RunPaths) -> bool:
    """Whether the service answers a request. A user's own port is never tried: a debugger may take one alone."""
    job = read_json(run.job) or {}
    try:
        with sockets.connect(run, job, services.kind(job) or "", timeout=1.0) as probe:
            probe.sendall(QUESTION)  # it may take connections long before it has loaded what it answers with
            return bool(probe.recv(1))
    except OSError:
        return False


class _Relay:
    """The way into a container, kept open."""

    def __init__(self, host: HostPaths, door: Door, tunnel: str):
        self.run, job = _run_of(host, door)
        self.path = os.path.join(sockets.folder(self.run), _relay_name(door, tunnel))
        self.argv = _relay_argv(self.run, job, door, tunnel)
        self.child: Optional[subprocess.Popen[bytes]] = None
        self.again_at = 0.0

    def keep(self) -> None:
        if (
            self.argv is None
            or (self.child is not None and self.child.poll() is None)
            or time.monotonic() < self.again_at
        ):
            return
        self.again_at = time.monotonic() + GENTLE
        remove(self.path)
        self.child = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def end(self) -> None:
        if self.child is not None:
            assert self.child.stdin is not None
            self.child.stdin.close()  # by this it ends in the container too, where a signal does not reach
            try:
                self.child.wait(GENTLE)
            except subprocess.TimeoutExpired:
                pass
            programs.kill(self.child)
        remove(self.path)
