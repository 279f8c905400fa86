"""Watch a job while it runs: record log times, enforce the time limit, carry out a stop, and record the end."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, List, Optional

from .. import clocks
from ..errors import AgentError
from ..files import write_atomically
from ..paths import RunPaths
from ..runtimes import Runtime
from ..setup import boards
from ..state import checkpoints, journal, recovered
from . import finish, hooks

if TYPE_CHECKING:
    from ..schema.job import AttemptJob
    from ..schema.run import Mark

TICK = 0.25  # seconds between two checks of stop requests, time limits and the log
DISK_EVERY = 600.0  # seconds between two measurements of the run's disk use
REST = 10.0  # seconds of the grace time that remain for a job with a plugin after TERM; a quarter of a short grace time
SETTLE = 10.0  # seconds that a job may take to end after its plugin has saved


def watch(run: RunPaths, job: AttemptJob, runtime: Runtime) -> None:
    """Watch the job until it has exited: log times, time limit, stop requests."""
    stopping = _Stopping(run, job, runtime)
    times = _LogTimes(run)
    with _Shutdown(run) as shutdown, boards.kept(run, job):
        checkpoint_hook = hooks.AtCheckpoints(run, job)
        observers, actors = [times.sample, checkpoint_hook.step], [stopping.step, shutdown.step]
        _until_exited(run, job, runtime, observers, actors)


def _until_exited(
    run: RunPaths,
    job: AttemptJob,
    runtime: Runtime,
    observers: List[Callable[[], None]],
    actors: List[Callable[[], None]],
) -> None:
    """Call these functions until the job has exited.

    At the end call the observers once more, for the job's last actions.
    """
    disk_at = time.monotonic() + DISK_EVERY
    while True:
        waiter = threading.Thread(target=_wait, args=(runtime, run, job), daemon=True)
        waiter.start()
        while waiter.is_alive():
            waiter.join(TICK)
            for step in observers + actors:
                step()
            if time.monotonic() > disk_at:
                disk_at = time.monotonic() + DISK_EVERY
                finish.note_disk_use(run)
        presence = runtime.presence(run, job)
        if presence.kind == "exited":
            presence = runtime.ended(run, job, presence, journal.fold(run).started)
        if presence.kind in ("exited", "absent"):
            if presence.exit_code != 0:  # else the plugin had time to list its checkpoints
                recovered.list_new(run)
            for observe in observers:
                observe()
        if presence.kind == "exited":
            finish.end_by_presence(run, journal.fold(run), presence)
            return
        if presence.kind == "absent":
            finish.end_gone(run, journal.fold(run))
            return
        # No answer does not mean absent: a stopped engine comes back. Sleep, so that this loop does not spin.
        time.sleep(TICK)


class _Shutdown:
    """Handle a TERM to the supervisor, which a host that shuts down sends to all processes: the plugin gets the chance
    to save.

    The shutdown is journalled first: a job that ends by it may exit with 0. The supervisor does nothing else to the
    job, because the host ends it. Without a plugin the supervisor exits at once; the next one finds out how the job
    ended.
    """

    noted = False  # in this process, for all attempts that it watches

    def __init__(self, run: RunPaths):
        self.run = run
        self.requested = self.is_handled = False

    def __enter__(self) -> "_Shutdown":
        signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _handle(self, *_: object) -> None:
        self.requested = _Shutdown.noted = True

    def step(self) -> None:
        if not self.requested or self.is_handled:
            return
        self.is_handled = True
        with suppress(OSError):  # a full disk must not keep the supervisor alive
            journal.record(self.run, "shutdown")
        if not checkpoints.has_plugin(self.run, journal.fold(self.run).attempt):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        ask_to_stop(self.run)


def is_shutting_down() -> bool:
    """Return whether the host has sent TERM to this supervisor: then it begins no further attempt."""
    return _Shutdown.noted


def _wait(runtime: Runtime, run: RunPaths, job: AttemptJob) -> None:
    try:
        runtime.wait(run, job, 60.0)
    except Exception:  # noqa: BLE001 (the next check shows how the job ended)
        traceback.print_exc()


class _Stopping:
    """Carry out a stop: write the stop file, send TERM to the main process, and KILL after the grace time.

    A job whose plugin reports can save at the end of a batch: TERM, which makes Lightning end without saving, is sent
    once it has saved, or when little of the grace time remains. While a checkpoint is being written, the grace time
    pauses. Time is measured as the host's time since its boot (see clocks.py): setting the clock moves no time limit.
    """

    def __init__(self, run: RunPaths, job: AttemptJob, runtime: Runtime):
        self.run, self.job, self.runtime = run, job, runtime
        self.size_read = -1
        self.state = journal.fold(run)
        self.has_plugin = self.is_handled = self.termed = self.killed = False
        allowed = job["max_duration"]
        left = None if allowed is None else max(allowed - self.state.spent, 0.0)
        self.deadline = None if left is None else _from_now(self.state.running or clocks.mark(), left)
        self.kill_at: Optional[float] = None
        self.term_at = 0.0
        self.saved = False
        self.checked_at = time.monotonic()
        self.paused = 0.0

    def step(self) -> None:
        since, self.checked_at = self.checked_at, time.monotonic()
        self._read_journal()
        if self._was_abandoned():
            self.killed = self.killed or self._signal("KILL")
            return
        if self.state.stop is None and self.deadline is not None and self.checked_at > self.deadline:
            journal.record(self.run, "stop", reason="duration", grace=self.job["grace"], force=False)
            return
        if self.kill_at is None or self.killed:
            return
        if not self.is_handled:
            self.is_handled = True
            ask_to_stop(self.run)
        if self._waits_for_a_checkpoint(self.checked_at - since):
            return
        self._note_saved()
        if not self.termed and self.checked_at >= self.term_at:
            self.termed = self._signal("TERM")
        if self.checked_at > self.kill_at:
            self.killed = self._signal("KILL")

    def _read_journal(self) -> None:
        size = os.stat(self.run.events).st_size
        if size == self.size_read:
            return
        # The journal grew: a user may have requested a stop, or a quicker stop.
        self.size_read, self.state = size, journal.fold(self.run)
        stop = self.state.stop
        if stop is None:
            return
        grace = 0.0 if stop.get("force") else float(stop["grace"])
        self.kill_at = _from_now(stop, grace) + self.paused
        self.has_plugin = checkpoints.has_plugin(self.run, self.state.attempt)
        self.term_at = self.kill_at - min(REST, grace / 4) if self.has_plugin else 0.0

    def _was_abandoned(self) -> bool:
        """Return whether the run ended or continued without this process: on another host that shares the home (see
        finish.abandon).
        """
        return not self.state.live or self.state.attempt != self.job["attempt"]

    def _waits_for_a_checkpoint(self, passed: float) -> bool:
        """Extend the deadlines by the time that `passed` while a checkpoint is being written.

        Never for long, and never with --force.
        """
        forced = self.state.stop is not None and self.state.stop.get("force")
        if forced or not self.has_plugin or self.paused > checkpoints.LONGEST_SAVING:
            return False
        if not checkpoints.is_saving(self.run):
            return False
        assert self.kill_at is not None
        self.paused += passed
        self.kill_at += passed
        self.term_at += passed
        return True

    def _note_saved(self) -> None:
        """Shorten the wait once the plugin has saved: a job that then runs on is ended before its grace time is over."""
        if not self.saved and checkpoints.stopped(self.run, self.state.attempt) is not None:
            self.saved = True
            self.term_at = min(self.term_at, self.checked_at + SETTLE)

    def _signal(self, name: str) -> bool:
        """Send a signal. Return False when the engine did not answer; the next step tries again."""
        try:
            self.runtime.signal(self.run, self.job, name)
        except (AgentError, OSError):
            traceback.print_exc()
            return False
        return True


def ask_to_stop(run: RunPaths) -> None:
    """Write the stop file.

    It is only a request: when the disk is full, or the job has put something else in its place, TERM is sent all the
    same.
    """
    with suppress(OSError):
        write_atomically(run.stop_file, b"")


def _from_now(began: Mark, allowed: float) -> float:
    """Return the moment `allowed` seconds after the mark `began` (see clocks.py) on this process's monotonic clock."""
    left = allowed - clocks.since(began)
    return time.monotonic() + min(max(left, 0.0), allowed)


class _LogTimes:
    """Record the size of the log over time, one line `unixtime offset` a second, for `logs --since` and `--timestamps`."""

    def __init__(self, run: RunPaths):
        self.run = run
        self.size = _last_offset(run.log_times)
        self.at: Optional[float] = None  # by the monotonic clock, which cannot be set back

    def sample(self) -> None:
        now = time.monotonic()
        if self.at is not None and now < self.at + 1.0:
            return
        # A log without times is better than a job without a supervisor.
        with suppress(OSError):
            size = os.stat(self.run.log).st_size
            if size != self.size:
                with open(self.run.log_times, "a") as file:
                    file.write("%.3f %d\n" % (time.time(), size))
                self.size, self.at = size, now


def _last_offset(path: str) -> int:
    try:
        with open(path) as file:
            lines = file.read().split("\n")
        return int(lines[-2].split(" ")[1])
    except (FileNotFoundError, IndexError, ValueError):
        return 0
