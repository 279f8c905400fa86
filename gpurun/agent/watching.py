"""What a supervisor does while the job runs: it times the log, keeps the deadline, carries out a stop, and sees the end."""

from __future__ import annotations

import os
import threading
import time
import traceback

from . import endings, journal, locks
from .errors import AgentError
from .files import write_atomically, write_json
from .paths import RunPaths
from .runtimes import Job, Runtime

TICK = 0.25  # seconds between two looks at stop requests, deadlines and the log
DISK_EVERY = 600.0  # seconds between two counts of the run's disk use


def watch(run: RunPaths, job: Job, runtime: Runtime, lock: locks.Held) -> None:
    """Until the job has exited: log times, deadline, stop requests, and a sign of life for the lock's file."""
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
                lock.touch()
                write_json(run.usage, {"bytes": endings.disk_use(run), "t": time.time()})
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
    """The stop file, TERM to the main process, and KILL when the grace time is over."""

    def __init__(self, run: RunPaths, job: Job, runtime: Runtime):
        self.run, self.job, self.runtime = run, job, runtime
        self.seen = -1
        self.state = journal.fold(run)
        self.termed = self.killed = False

    def step(self) -> None:
        size = os.stat(self.run.events).st_size
        if size != self.seen:  # the journal grew: somebody may have asked for a stop
            self.seen, self.state = size, journal.fold(self.run)
        self._check_deadline()
        stop = self.state.stop
        if stop is None or self.killed:
            return
        if not self.termed:
            write_atomically(self.run.stop_file, b"")
            self.termed = self._signal("TERM")
        if stop.get("force") or time.time() > stop["t"] + float(stop["grace"]):
            self.killed = self._signal("KILL")

    def _signal(self, name: str) -> bool:
        """False when the engine did not answer: it is asked again at the next step."""
        try:
            self.runtime.signal(self.run, self.job, name)
        except AgentError:
            traceback.print_exc()
            return False
        return True

    def _check_deadline(self) -> None:
        allowed = self.job["max_duration"]
        started = self.state.started
        if allowed is None or started is None or self.state.stop is not None:
            return
        if time.time() > started + allowed:
            grace = self.job["grace"]
            self.state.stop = journal.record(self.run, "stop", reason="duration", grace=grace, force=False)


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
        try:
            size = os.stat(self.run.log).st_size
        except FileNotFoundError:
            return
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
