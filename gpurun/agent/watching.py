"""What a supervisor does while the job runs: it times the log, keeps the deadline, carries out a stop, and sees the end."""

from __future__ import annotations

import os
import threading
import time
import traceback
from contextlib import suppress
from typing import Optional

from . import endings, journal
from .errors import AgentError
from .files import write_atomically
from .paths import RunPaths
from .runtimes import Job, Runtime

TICK = 0.25  # seconds between two looks at stop requests, deadlines and the log
DISK_EVERY = 600.0  # seconds between two counts of the run's disk use


def watch(run: RunPaths, job: Job, runtime: Runtime) -> None:
    """Until the job has exited: log times, deadline, stop requests."""
    stopping = _Stopping(run, job, runtime)
    times = _LogTimes(run)
    disk_at = time.time() + DISK_EVERY
    while True:
        waiter = threading.Thread(target=_wait, args=(runtime, run, job), daemon=True)
        waiter.start()
        while waiter.is_alive():
            waiter.join(TICK)
            times.sample()
            stopping.step()
            if time.time() > disk_at:
                disk_at = time.time() + DISK_EVERY
                endings.note_disk_use(run)
        presence = runtime.presence(run, job)
        if presence.kind == "exited":
            times.sample()
            endings.end_by_presence(run, journal.fold(run), presence)
            return
        if presence.kind == "absent":
            endings.end_gone(run, journal.fold(run))
            return
        # No answer is not absent: an engine that was stopped comes back. Don't spin meanwhile.
        time.sleep(TICK)


def _wait(runtime: Runtime, run: RunPaths, job: Job) -> None:
    try:
        runtime.wait(run, job, 60.0)
    except Exception:  # noqa: BLE001 (the next look at the job says what became of it)
        traceback.print_exc()


class _Stopping:
    """The stop file, TERM to the main process, and KILL when the grace time is over.

    Time is measured from when this process first knew: a clock that is set meanwhile moves no deadline.
    """

    def __init__(self, run: RunPaths, job: Job, runtime: Runtime):
        self.run, self.job, self.runtime = run, job, runtime
        self.seen = -1
        self.state = journal.fold(run)
        self.termed = self.killed = False
        self.deadline = _from_now(self.state.started or time.time(), job["max_duration"])
        self.kill_at: Optional[float] = None

    def step(self) -> None:
        size = os.stat(self.run.events).st_size
        if size != self.seen:  # the journal grew: somebody may have asked for a stop, or for a quicker one
            self.seen, self.state = size, journal.fold(self.run)
            stop = self.state.stop
            self.kill_at = _from_now(stop["t"], 0.0 if stop.get("force") else float(stop["grace"])) if stop else None
        if self.state.stop is None and self.deadline is not None and time.monotonic() > self.deadline:
            journal.record(self.run, "stop", reason="duration", grace=self.job["grace"], force=False)
            return
        if self.kill_at is None or self.killed:
            return
        if not self.termed:
            # Only a wish: a full disk, or a job that has made something else of that name, does not keep TERM away.
            with suppress(OSError):
                write_atomically(self.run.stop_file, b"")
            self.termed = self._signal("TERM")
        if time.monotonic() > self.kill_at:
            self.killed = self._signal("KILL")

    def _signal(self, name: str) -> bool:
        """False when the engine did not answer: it is asked again at the next step."""
        try:
            self.runtime.signal(self.run, self.job, name)
        except (AgentError, OSError):
            traceback.print_exc()
            return False
        return True


def _from_now(began: float, allowed: Optional[float]) -> Optional[float]:
    """`allowed` seconds after the unix time `began`, as a moment of this process's monotonic clock; None for no limit."""
    if allowed is None:
        return None
    left = began + allowed - time.time()
    return time.monotonic() + min(max(left, 0.0), allowed)


class _LogTimes:
    """When the log had which size, a line `unixtime offset` a second: for `logs --since` and `--timestamps`."""

    def __init__(self, run: RunPaths):
        self.run = run
        self.size = _last_offset(run.log_times)
        self.at = 0.0

    def sample(self) -> None:
        now = time.time()
        if now < self.at + 1.0:
            return
        # A log without times is better than a job without a supervisor.
        with suppress(OSError):
            size = os.stat(self.run.log).st_size
            if size != self.size:
                with open(self.run.log_times, "a") as file:
                    file.write("%.3f %d\n" % (now, size))
                self.size, self.at = size, now


def _last_offset(path: str) -> int:
    try:
        with open(path) as file:
            lines = file.read().split("\n")
        return int(lines[-2].split(" ")[1])
    except (FileNotFoundError, IndexError, ValueError):
        return 0
