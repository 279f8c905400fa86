"""What a supervisor does while the job runs: it times the log, keeps the deadline, carries out a stop, and sees the end."""

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

TICK = 0.25  # seconds between two looks at stop requests, deadlines and the log
DISK_EVERY = 600.0  # seconds between two counts of the run's disk use
REST = 10.0  # seconds of the grace time that are left to a job with a plugin when TERM comes; a quarter of a short one
SETTLE = 10.0  # seconds that a job may take to end by itself once its plugin has saved


def watch(run: RunPaths, job: AttemptJob, runtime: Runtime) -> None:
    """Until the job has exited: log times, deadline, stop requests."""
    stopping = _Stopping(run, job, runtime)
    times = _LogTimes(run)
    with _Shutdown(run) as shutdown, boards.kept(run, job):
        looking = hooks.AtCheckpoints(run, job)
        looks, acts = [times.sample, looking.step], [stopping.step, shutdown.step]
        _until_exited(run, job, runtime, looks, acts)


def _until_exited(
    run: RunPaths, job: AttemptJob, runtime: Runtime, looks: List[Callable[[], None]], acts: List[Callable[[], None]]
) -> None:
    """Take these steps until the job has exited, and look once more at what it did last."""
    disk_at = time.monotonic() + DISK_EVERY
    while True:
        waiter = threading.Thread(target=_wait, args=(runtime, run, job), daemon=True)
        waiter.start()
        while waiter.is_alive():
            waiter.join(TICK)
            for step in looks + acts:
                step()
            if time.monotonic() > disk_at:
                disk_at = time.monotonic() + DISK_EVERY
                finish.note_disk_use(run)
        presence = runtime.presence(run, job)
        if presence.kind == "exited":
            presence = runtime.ended(run, job, presence, journal.fold(run).started)
        if presence.kind in ("exited", "absent"):
            if presence.exit_code != 0:  # else the plugin has had the time
                recovered.take_in(run)
            for look in looks:
                look()
        if presence.kind == "exited":
            finish.end_by_presence(run, journal.fold(run), presence)
            return
        if presence.kind == "absent":
            finish.end_gone(run, journal.fold(run))
            return
        # No answer is not absent: an engine that was stopped comes back. Don't spin meanwhile.
        time.sleep(TICK)


class _Shutdown:
    """TERM to the supervisor, as a host that shuts down sends it to all: the plugin gets the chance to save.

    It is journalled first of all: a job that ends by such a shutdown may well leave with 0. Nothing else is done to the job:
    the host does that. Without a plugin the supervisor goes, as it always did; the next one finds what has become of the job.
    """

    noted = False  # in this process, whichever attempt it watches

    def __init__(self, run: RunPaths):
        self.run = run
        self.asked = self.told = False

    def __enter__(self) -> "_Shutdown":
        signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _note(self, *_: object) -> None:
        self.asked = _Shutdown.noted = True

    def step(self) -> None:
        if not self.asked or self.told:
            return
        self.told = True
        with suppress(OSError):  # a full disk is no reason to stay
            journal.record(self.run, "shutdown")
        if not checkpoints.has_plugin(self.run, journal.fold(self.run).attempt):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        ask_to_stop(self.run)


def told_to_go() -> bool:
    """Return whether the host has sent this supervisor TERM: then it begins no further attempt."""
    return _Shutdown.noted


def _wait(runtime: Runtime, run: RunPaths, job: AttemptJob) -> None:
    try:
        runtime.wait(run, job, 60.0)
    except Exception:  # noqa: BLE001 (the next look at the job says what became of it)
        traceback.print_exc()


class _Stopping:
    """The stop file, TERM to the main process, and KILL when the grace time is over.

    A job whose plugin reports has the chance to save at a batch's end: TERM, by which Lightning ends without saving, comes
    when it has saved, or when little of the grace time is left. While a checkpoint is being written, the grace time pauses.
    Time is measured by the host's time since its boot (see clocks.py): a clock that is set meanwhile moves no deadline.
    """

    def __init__(self, run: RunPaths, job: AttemptJob, runtime: Runtime):
        self.run, self.job, self.runtime = run, job, runtime
        self.seen = -1
        self.state = journal.fold(run)
        self.has_plugin = self.told = self.termed = self.killed = False
        allowed = job["max_duration"]
        left = None if allowed is None else max(allowed - self.state.spent, 0.0)
        self.deadline = None if left is None else _from_now(self.state.running or clocks.mark(), left)
        self.kill_at: Optional[float] = None
        self.term_at = 0.0
        self.saved = False
        self.looked = time.monotonic()
        self.paused = 0.0

    def step(self) -> None:
        since, self.looked = self.looked, time.monotonic()
        self._read_journal()
        if self._was_given_up():
            self.killed = self.killed or self._signal("KILL")
            return
        if self.state.stop is None and self.deadline is not None and self.looked > self.deadline:
            journal.record(self.run, "stop", reason="duration", grace=self.job["grace"], force=False)
            return
        if self.kill_at is None or self.killed:
            return
        if not self.told:
            self.told = True
            ask_to_stop(self.run)
        if self._waits_for_a_checkpoint(self.looked - since):
            return
        self._note_saved()
        if not self.termed and self.looked >= self.term_at:
            self.termed = self._signal("TERM")
        if self.looked > self.kill_at:
            self.killed = self._signal("KILL")

    def _read_journal(self) -> None:
        size = os.stat(self.run.events).st_size
        if size == self.seen:
            return
        # It grew: somebody may have asked for a stop, or for a quicker one.
        self.seen, self.state = size, journal.fold(self.run)
        stop = self.state.stop
        if stop is None:
            return
        grace = 0.0 if stop.get("force") else float(stop["grace"])
        self.kill_at = _from_now(stop, grace) + self.paused
        self.has_plugin = checkpoints.has_plugin(self.run, self.state.attempt)
        self.term_at = self.kill_at - min(REST, grace / 4) if self.has_plugin else 0.0

    def _was_given_up(self) -> bool:
        """The run ended, or went on, without this process: on another machine that shares the home (see finish.abandon)."""
        return not self.state.live or self.state.attempt != self.job["attempt"]

    def _waits_for_a_checkpoint(self, passed: float) -> bool:
        """Put the deadlines off by the time that `passed` while one is being written; never for long, nor for --force."""
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
        """What was asked for is done: a job that goes on for long behind it is ended before its grace time."""
        if not self.saved and checkpoints.stopped(self.run, self.state.attempt) is not None:
            self.saved = True
            self.term_at = min(self.term_at, self.looked + SETTLE)

    def _signal(self, name: str) -> bool:
        """False when the engine did not answer: it is asked again at the next step."""
        try:
            self.runtime.signal(self.run, self.job, name)
        except (AgentError, OSError):
            traceback.print_exc()
            return False
        return True


def ask_to_stop(run: RunPaths) -> None:
    """The stop file. Only a wish: a full disk, or a job that has made something else of that name, does not keep TERM away."""
    with suppress(OSError):
        write_atomically(run.stop_file, b"")


def _from_now(began: Mark, allowed: float) -> float:
    """Return the moment `allowed` seconds after the mark `began` (see clocks.py) on this process's monotonic clock."""
    left = allowed - clocks.since(began)
    return time.monotonic() + min(max(left, 0.0), allowed)


class _LogTimes:
    """When the log had which size, a line `unixtime offset` a second: for `logs --since` and `--timestamps`."""

    def __init__(self, run: RunPaths):
        self.run = run
        self.size = _last_offset(run.log_times)
        self.at: Optional[float] = None  # by the monotonic clock: one that is set back is not waited for

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
