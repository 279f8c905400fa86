"""The detached process that takes one run from `start` to its end.

It holds the run's lock for its whole life. Its steps are idempotent: one that was killed is started again by the next
verb, runs them again, and finds what is there. Whatever takes long happens here, never in the user's terminal.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import Any, Dict, List

from . import allocation, facts, journal, locks, preparing, runtimes
from . import vocabulary as words
from .errors import AgentError, RunFailed
from .files import read_json, write_atomically, write_json
from .paths import HostPaths, RunPaths
from .runtimes import Presence, Runtime

TICK = 0.25  # seconds between two looks at stop requests, deadlines and the log
DISK_EVERY = 600.0  # seconds between two counts of the run's disk use
Job = Dict[str, Any]


class Stopped(Exception):
    """A stop was asked for before the job was started."""


# --- how a run ends -------------------------------------------------------------------------------------------------


def end(run: RunPaths, state: str, reason: str, **facts_of_end: Any) -> None:
    """Record the end, and wipe what must not outlive the run."""
    journal.record_end(run, state, reason, **facts_of_end)
    wipe(run)
    write_json(run.usage, {"bytes": disk_use(run), "t": time.time()})


def wipe(run: RunPaths) -> None:
    """Take away the user's secrets."""
    try:
        os.unlink(run.env)
    except FileNotFoundError:
        pass


def end_by_presence(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    """The engine says that the job has exited: what that means. Success needs exit code 0 and no stop request."""
    code = presence.exit_code
    if state.stop is not None:
        kind = words.TIMED_OUT if state.stop.get("reason") == "duration" else words.STOPPED
        end(run, kind, state.stop.get("reason", "stop"), exit_code=code)
    elif code == 0:
        end(run, words.SUCCEEDED, "exit", exit_code=0)
    elif code == 137 and presence.oom:
        end(run, words.FAILED, "oom", exit_code=code, message="the job ran out of the memory it was given")
    elif code is not None and 128 < code <= 128 + 64:
        end(
            run,
            words.FAILED,
            "signal",
            exit_code=code,
            message="the job was killed by signal %d" % (code - 128),
        )
    else:
        end(run, words.FAILED, "exit", exit_code=code)


def disk_use(run: RunPaths) -> int:
    """Bytes on disk that go when the run is removed: files that other snapshots share count for nothing here."""
    total = 0
    for folder, _, names in os.walk(run.root):
        for name in names:
            try:
                found = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if found.st_nlink == 1:
                total += found.st_blocks * 512
    return total


# --- the process ----------------------------------------------------------------------------------------------------


def launch(host: HostPaths, run: RunPaths) -> None:
    """Start a supervisor that outlives this process and its connection. Returns once it holds the run's lock.

    All three descriptors are redirected: one that is left open keeps the SSH channel until the job ends.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.setsid()
        if os.fork():
            os._exit(0)
        try:
            _redirect(run)
            _live(host, run, tell)
        except BaseException:  # noqa: BLE001 (this process must not go on as the verb that started it)
            traceback.print_exc()
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    os.read(told, 1)  # one byte, or the end of a supervisor that found the lock held
    os.close(told)


def _redirect(run: RunPaths) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(run.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for source in (nothing, log):
        os.close(source)
    # A traceback is in the log at once, whatever becomes of this process.
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _live(host: HostPaths, run: RunPaths, tell: int) -> None:
    lock = locks.acquire(locks.run_lock(run.id))
    if lock is None:
        return
    os.write(tell, b"1")
    os.close(tell)
    try:
        supervise(host, run, lock)
    except Exception:  # noqa: BLE001
        # Not an end: the job may be running. The next verb starts a supervisor again; the cause is in this log.
        traceback.print_exc()
        _give_up_before_start(run)
    finally:
        lock.release()


def _give_up_before_start(run: RunPaths) -> None:
    """A failure of ours before the job ran would come again with each supervisor: that is the run's end."""
    if journal.fold(run).state in (words.QUEUED, words.PREPARING):
        what = traceback.format_exc().strip().splitlines()[-1]
        end(run, words.FAILED, "internal", message=what, next="see " + run.supervisor_log + " on the host")


def supervise(host: HostPaths, run: RunPaths, lock: locks.Held) -> None:
    """The steps, each of which may find its work done."""
    job = read_json(run.job)
    assert job is not None
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    leases: List[locks.Held] = []
    try:
        if not journal.fold(run).live:
            return
        presence = runtime.presence(run, job)
        if presence.kind == "created":  # never started, and for GPUs that may be another's by now
            runtime.remove(run, job)
        if presence.kind in ("absent", "created"):
            leases = _bring_up(host, run, job, runtime)
        else:
            leases = allocation.adopt(run, job, journal.fold(run).gpus)
        _note_running(run)
        _watch(run, job, runtime, lock)
    except Stopped:
        runtime.remove(run, job)
        state = journal.fold(run)
        reason = (state.stop or {}).get("reason", "stop")
        end(run, words.STOPPED, reason, message="stopped before the job was started")
    except RunFailed as failure:
        runtime.remove(run, job)
        end(run, words.FAILED, failure.reason, message=failure.what, next=failure.next_step)
    finally:
        allocation.give_back(run, leases)


def _bring_up(host: HostPaths, run: RunPaths, job: Job, runtime: Runtime) -> List[locks.Held]:
    """Workspace, image and dependencies, GPUs, container: the leases that the job holds."""
    journal.record(run, words.PREPARING)
    check_stop(run)
    prepared = preparing.prepare(run, job, runtime, lambda: check_stop(run))
    journal.record(run, "prepared", record=prepared)
    gpus, leases = allocation.wait_for_gpus(run, job, lambda: check_stop(run))
    check_stop(run)  # again under the lock, last thing before the job runs
    runtime.create_and_start(run, job, prepared, gpus, [lease.fd for lease in leases])
    return leases


def check_stop(run: RunPaths) -> None:
    """Raises Stopped when a stop was asked for."""
    if journal.fold(run).stop is not None:
        raise Stopped


def _note_running(run: RunPaths) -> None:
    if journal.fold(run).state != words.RUNNING:
        journal.record(run, words.RUNNING, boot_id=facts.boot_id())


# --- while the job runs ---------------------------------------------------------------------------------------------


def _watch(run: RunPaths, job: Job, runtime: Runtime, lock: locks.Held) -> None:
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
                write_json(run.usage, {"bytes": disk_use(run), "t": time.time()})
        presence = runtime.presence(run, job)
        if presence.kind == "exited":
            times.sample()
            end_by_presence(run, journal.fold(run), presence)
            return
        if presence.kind == "absent":
            end(
                run,
                words.LOST,
                "keeper" if runtime.name == "bare" else "removed",
                message="the job was removed from outside",
            )
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
