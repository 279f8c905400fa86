"""Run the detached process that takes one run from `start` to its end.

It holds the run's lock for its whole life. Its steps are idempotent: when it is killed, the next verb starts it again,
and it repeats the steps and finds what is done. Everything that takes long happens here, never in the user's terminal.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, List, Optional

from .. import error_codes, machine, runtimes
from .. import vocabulary as words
from ..errors import AgentError, ImageGone, JobLost, RunFailed
from ..host import locks
from ..host.engine import EngineError, Kind
from ..host.gpus import Gpu
from ..images import inventory
from ..paths import RunPaths
from ..queue import allocation, leases
from ..runtimes import Presence, Runtime
from ..setup import sockets, wrapper
from ..state import jobs, journal, origin
from . import attempts, finish, monitor, preparation

if TYPE_CHECKING:
    from ..schema.job import AttemptJob
    from ..schema.run import Prepared

STARTED = "started"
VERBS_LOOK = 2.0  # seconds: a verb that reconciles holds a run's lock only for moments; a longer holder is a supervisor
PATIENCE = 30.0  # seconds for a supervisor to take its run's lock
PAUSE = 2.0  # seconds before a failed step is retried
ENGINE_SILENT = "the engine, which does not answer"
IMAGE_TRIES = 5  # attempts to prepare an image that is gone again when the GPUs are available
TOUCH_EVERY = 3600.0  # seconds; cleaners of /tmp count in days
LEAD_EVERY = 10.0  # seconds between two repairs of the link to the job's temporary files


class Stopped(Exception):
    """Report that a stop was requested before the job was started."""


class StoppedBefore(Stopped):
    """Report a stop before a container was requested: nothing to remove, and no engine to wait for."""


def launch(run: RunPaths) -> bool:
    """Start a supervisor that outlives this process and its connection. Return whether one holds the run's lock now.

    All three descriptors are redirected: an open one would keep the SSH channel open until the job ends.
    """
    return _start_supervisor(run) is None


def launch_or_end(run: RunPaths) -> None:
    """Start the supervisor of a run that was just accepted.

    Without a supervisor nothing would watch the run, so it ends as failed.
    """
    why = _start_supervisor(run)
    if why is None:
        return
    held = None
    with suppress(OSError, AgentError):  # where no lock can be made, no process holds one
        held = locks.acquire(locks.run_lock(run.id))
        if held is None:
            return
    try:
        what = "gpurun could not start the process that watches the run: " + why
        next_step = "free what the host lacks (processes, inodes, memory), then submit or resume it"
        finish.end(run, words.FAILED, "start", message=what, next=next_step)
    finally:
        if held is not None:
            held.release()


def _start_supervisor(run: RunPaths) -> Optional[str]:
    """Start a supervisor. Return None once it, or another one, holds the run's lock, else why none does."""
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        return str(error)
    if child == 0:
        report = _StartReport(writer)
        try:
            os.close(reader)
            os.setsid()
            if os.fork():
                os._exit(0)
            _redirect(run)
            _run_supervisor(run, report)
        except BaseException as error:  # noqa: BLE001 (this process must not continue as the verb that started it)
            report.send("%s: %s" % (type(error).__name__, error))
            traceback.print_exc()
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    try:
        if not select.select([reader], [], [], PATIENCE)[0]:
            return "it did not report in %g s" % PATIENCE
        text = os.read(reader, 1024).decode("utf-8", "replace")
    finally:
        os.close(reader)
    return None if text == STARTED else text or "it was killed at once"


class _StartReport:
    """Report once to the verb that started this supervisor: that a supervisor runs, or why none does."""

    def __init__(self, fd: int):
        self.fd = fd

    def send(self, text: str) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.write(fd, text.encode("utf-8", "replace")[:1024])
            os.close(fd)


def _redirect(run: RunPaths) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(run.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for source in (nothing, log):
        os.close(source)
    # Line buffering: a traceback is in the log even when this process is killed.
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _run_supervisor(run: RunPaths, report: _StartReport) -> None:
    lock = locks.acquire_within(locks.run_lock(run.id), VERBS_LOOK)
    report.send(STARTED)  # this process or another one holds the lock
    if lock is None:
        return
    life = _Life(run)
    life.show()
    threading.Thread(target=_touch_locks_forever, args=(run, life), daemon=True).start()
    while True:
        try:
            supervise(run)
            life.hide()  # like the run's lock: a next attempt may begin while this process copies
            from ..outputs import container_files  # a late import: it imports this module

            container_files.gather_at_end(run, lock)
            return
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            if _end_after_error(run, error):
                return
            # The job may be running: a full disk must not leave it without a time limit and without a way to stop it.
            time.sleep(PAUSE)


class _Life:
    """Show other hosts that share this home that the supervisor is alive (see `origin.show_life`)."""

    def __init__(self, run: RunPaths):
        self.run = run
        self.fd = -1
        self.is_over = False
        self._lock = threading.Lock()

    def show(self) -> None:
        """Show it, if it is not shown yet: a process that only checks locks the file for a moment too."""
        with self._lock:
            if self.fd < 0 and not self.is_over:
                self.fd = origin.show_life(self.run)

    def hide(self) -> None:
        """Stop showing it."""
        with self._lock:
            self.is_over = True
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


def _touch_locks_forever(run: RunPaths, life: _Life) -> None:
    """Touch the lock files of this run, its job and its GPUs while this process lives, so that cleaners of /tmp do not
    remove them.

    Also repair the link to the job's temporary files when it was removed, and show the supervisor's life when that
    failed before.
    """
    touched = time.monotonic()
    while True:
        time.sleep(LEAD_EVERY)
        life.show()
        with suppress(AgentError, OSError, ValueError):
            state = journal.fold(run)
            if state.state == words.RUNNING and jobs.of_attempt_or_empty(run, state)["host"]["runtime"] == "bare":
                sockets.tmp(run)
        if time.monotonic() < touched + TOUCH_EVERY:
            continue
        touched = time.monotonic()
        with suppress(AgentError, OSError, ValueError):
            _touch_files(run)


def _touch_files(run: RunPaths) -> None:
    uuids = [gpu["uuid"] for gpu in journal.fold(run).gpus]
    gpus = [path for uuid in uuids for path in (leases.lock_path(uuid), leases.note_path(uuid, run.id))]
    for path in (locks.run_lock(run.id), locks.job_lock(run.id), *gpus, sockets.tmp_link(run)):
        with suppress(OSError):
            os.utime(path, follow_symlinks=False)


def _end_after_error(run: RunPaths, error: Exception) -> bool:
    """End the run when gpurun fails before the job ran: the same failure would come with each try."""
    state = journal.fold(run)
    if state.state not in (words.QUEUED, words.PREPARING) or (not state.between and _job_is_there(run)):
        return False
    what = "%s: %s" % (type(error).__name__, error)
    with suppress(OSError):
        finish.end(run, words.FAILED, "internal", message=what, next="see " + run.supervisor_log + " on the host")
    return True


def _job_is_there(run: RunPaths) -> bool:
    """Return whether the job was started though that could not be recorded: after an end, no process would watch it."""
    try:
        job = jobs.of_attempt(run)
        if job is None:
            return False
        runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
        kind = runtime.presence(run, job).kind
        if kind == "created":
            kind = _remove_unstarted(run, job, runtime).kind
        return kind in ("running", "exited", "no_answer")
    except Exception:  # noqa: BLE001 (the check itself failed, and would fail again)
        traceback.print_exc()
        return False


def supervise(run: RunPaths) -> None:
    """Run one attempt after the other, until the run has ended, or the host shuts down."""
    while True:
        state = journal.fold(run)
        if not state.live:
            return
        if state.between:
            _next_attempt(run)
        _run_attempt(run)
        state = journal.fold(run)
        if not state.between or monitor.is_shutting_down():
            return


def _next_attempt(run: RunPaths) -> None:
    while True:
        if journal.fold(run).stop is not None:
            finish.end(run, words.STOPPED, "stop", message="stopped before its next attempt was started")
            return
        try:
            attempts.begin(run, "retry")
            return
        except AgentError as error:  # an engine that does not answer comes back
            _record_wait(run, error)


def _run_attempt(run: RunPaths) -> None:
    """Do the steps of one attempt. Each step may find its work done."""
    job = jobs.of_attempt(run)
    assert job is not None
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    held: List[locks.Held] = []
    asking: Optional[inventory.Asking] = None
    try:
        presence = _presence(run, job, runtime)
        state = journal.fold(run)
        if not state.live:
            return
        if presence.kind == "created":  # it was never started, and its GPUs may belong to another run by now
            presence = _remove_unstarted(run, job, runtime)
        if presence.kind not in ("absent", "created"):
            held = allocation.adopt(run, job, state.gpus)
        elif state.state == words.RUNNING:  # a job is never started a second time
            finish.end_gone(run, state)
            return
        else:
            _bring_up(run, job, runtime, held)
        _note_running(run)
        asking = inventory.Asking(
            run, job, partial(runtime.about, run, job)
        )  # not before: the user waits for the job's start
        uuids = [gpu["uuid"] for gpu in journal.fold(run).gpus]
        with leases.kept(uuids, run.id, job["owner"], held):
            monitor.watch(run, job, runtime)
    except Stopped as stopped:
        if not isinstance(stopped, StoppedBefore):
            _remove_container(run, job, runtime)
        finish.end(run, words.STOPPED, "stop", message="stopped before the job was started")
    except RunFailed as failure:
        _remove_container(run, job, runtime)
        end = words.LOST if isinstance(failure, JobLost) else words.FAILED
        finish.end(run, end, failure.reason, message=failure.what, next=failure.next_step)
    finally:
        allocation.give_back(run, held)
        if asking is not None:
            asking.finish()


def _presence(run: RunPaths, job: AttemptJob, runtime: Runtime) -> Presence:
    """Return whether the job exists. Wait for an engine that does not answer: no answer does not mean absent."""
    state = journal.fold(run)
    if state.state == words.QUEUED and not state.prepared:  # no step was done: the engine need not be asked
        return Presence("absent")
    while True:
        presence = runtime.presence(run, job)
        if presence.kind != "no_answer":
            return presence
        if state.state != words.RUNNING and state.waiting is None:  # a running job waits for nothing
            state.waiting = ENGINE_SILENT
            journal.record(run, "waiting", waiting=ENGINE_SILENT)
        time.sleep(PAUSE)


def _remove_container(run: RunPaths, job: AttemptJob, runtime: Runtime) -> None:
    """Remove the container before the end is recorded: a start that may have failed may have started the job, and an
    ended run is not reconciled.

    The container may belong to an earlier attempt, or to this one. When its own files cannot be copied, it is kept for
    the fetch.
    """
    while True:
        try:
            if job["attempt"] > 1 or wrapper.was_started(run, job):
                attempts.gather_earlier(run, job)
            runtime.remove(run, job)
            return
        except AgentError as error:
            if error.code == error_codes.NOT_COPIED and runtime.presence(run, job).kind != "running":
                return
            _record_wait(run, error)


def _remove_unstarted(run: RunPaths, job: AttemptJob, runtime: Runtime) -> Presence:
    """Remove a container that was never started.

    Return the job's presence after that: a pending start may come first.
    """
    while True:
        try:
            runtime.remove(run, job, unstarted=True)
            return Presence("absent")
        except EngineError as error:
            if error.kind == Kind.RUNNING:
                return _presence(run, job, runtime)
            _wait_for_engine(run, job, runtime, error)


def _remove_earlier_container(run: RunPaths, job: AttemptJob, runtime: Runtime) -> None:
    """Remove the container of an earlier attempt, which has the name that the new one needs.

    Its own files are copied first.
    """
    while True:
        check_stop(run)
        try:
            attempts.gather_earlier(run, job)
            runtime.remove(run, job)
            return
        except AgentError as error:
            _record_wait(run, error)


def _record_wait(run: RunPaths, error: AgentError) -> None:
    """Record what the run waits for, and sleep before the next try."""
    traceback.print_exc()
    if journal.fold(run).waiting != error.what:
        journal.record(run, "waiting", waiting=error.what)
    time.sleep(PAUSE)


def _bring_up(run: RunPaths, job: AttemptJob, runtime: Runtime, held: Optional[List[locks.Held]] = None) -> None:
    """Prepare workspace, image and dependencies, GPUs and container.

    The leases are added to `held`, so that the caller can release them.
    """
    held = [] if held is None else held
    journal.record(run, words.PREPARING)
    if job["attempt"] > 1:
        _remove_earlier_container(run, job, runtime)
    for tries_left in reversed(range(IMAGE_TRIES)):
        try:
            check_stop(run)
            prepared = _prepare(run, job, runtime)
            journal.record(run, "prepared", record=prepared)
            gpus, taken = allocation.wait_for_gpus(run, job, lambda: check_stop(run))
        except Stopped:
            if job["attempt"] > 1:  # the container of an earlier attempt may exist
                raise
            raise StoppedBefore from None
        held += taken
        try:
            check_stop(run)  # once more under the lock, right before the job starts
            _start(run, job, runtime, prepared, gpus, held)
            return
        except ImageGone:
            if not tries_left:
                raise
            # A run may wait for a night, in which `docker system prune` runs. Its ticket keeps its place in line.
            leases.release(held)
            held.clear()
            journal.record(run, words.PREPARING, waiting="its image again, which was removed from the host")
    raise AssertionError("unreachable")


def _prepare(run: RunPaths, job: AttemptJob, runtime: Runtime) -> Prepared:
    while True:
        try:
            return preparation.prepare(run, job, runtime, lambda: check_stop(run))
        except EngineError as error:
            _wait_for_engine(run, job, runtime, error)


def _start(
    run: RunPaths, job: AttemptJob, runtime: Runtime, prepared: Prepared, gpus: List[Gpu], held: List[locks.Held]
) -> None:
    while True:
        journal.record_step(run, "starting the job")
        try:
            runtime.create_and_start(run, job, prepared, gpus, [lease.fd for lease in held])
            return
        except EngineError as error:
            _wait_for_engine(run, job, runtime, error)


def _wait_for_engine(run: RunPaths, job: AttemptJob, runtime: Runtime, error: EngineError) -> None:
    """Wait until the engine answers again, and record the wait. Raises Stopped."""
    if not error.is_away:
        raise error
    _record_wait(run, error)
    while runtime.presence(run, job).kind == "no_answer":
        check_stop(run)
        time.sleep(PAUSE)
    check_stop(run)
    journal.record(run, words.PREPARING)


def check_stop(run: RunPaths) -> None:
    """Raise Stopped when a stop was requested."""
    if journal.fold(run).stop is not None:
        raise Stopped


def _note_running(run: RunPaths) -> None:
    if journal.fold(run).state != words.RUNNING:
        journal.record(run, words.RUNNING, boot_id=machine.boot_id())
