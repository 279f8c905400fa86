"""The detached process that takes one run from `start` to its end.

It holds the run's lock for its whole life. Its steps are idempotent: one that was killed is started again by the next
verb, runs them again, and finds what is there. Whatever takes long happens here, never in the user's terminal.
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
from ..errors import AgentError, ImageGone, RunFailed
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

STANDS = "stands"
VERBS_LOOK = (
    2.0  # seconds: a verb that reconciles holds a run's lock for moments; who holds it for longer is a supervisor
)
PATIENCE = 30.0  # seconds for a supervisor to take its run's lock
PAUSE = 2.0  # seconds before what did not work is tried again
ENGINE_SILENT = "the engine, which does not answer"
IMAGE_TRIES = 5  # times that an image is made ready which is gone again when the GPUs are there
TOUCH_EVERY = 3600.0  # seconds; cleaners of /tmp count in days
LEAD_EVERY = 10.0  # seconds; a job without its way to its temporary files fails at the next one


class Stopped(Exception):
    """A stop was asked for before the job was started."""


class StoppedBefore(Stopped):
    """The same, before anybody was asked for a container: there is nothing to clear away, and no engine to wait for."""


def launch(run: RunPaths) -> bool:
    """Start a supervisor that outlives this process and its connection. Return whether one holds the run's lock now.

    All three descriptors are redirected: one that is left open keeps the SSH channel until the job ends.
    """
    return _why_none_stands(run) is None


def launch_or_end(run: RunPaths) -> None:
    """Start the supervisor of a run that was just accepted. Without one nobody would look after it: it ends as failed."""
    why = _why_none_stands(run)
    if why is None:
        return
    held = None
    with suppress(OSError, AgentError):  # where no lock can be made nobody holds one
        held = locks.acquire(locks.run_lock(run.id))
        if held is None:
            return
    try:
        what = "gpurun could not start the process that looks after the run: " + why
        next_step = "free what is used up on the host (processes, inodes, memory), then submit or resume it"
        finish.end(run, words.FAILED, "start", message=what, next=next_step)
    finally:
        if held is not None:
            held.release()


def _why_none_stands(run: RunPaths) -> Optional[str]:
    """Start a supervisor; None once it, or another one, holds the run's lock, else why there is none."""
    told, tell = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(told)
        os.close(tell)
        return str(error)
    if child == 0:
        first = _FirstWord(tell)
        try:
            os.close(told)
            os.setsid()
            if os.fork():
                os._exit(0)
            _redirect(run)
            _live(run, first)
        except BaseException as error:  # noqa: BLE001 (this process must not go on as the verb that started it)
            first.say("%s: %s" % (type(error).__name__, error))
            traceback.print_exc()
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    try:
        if not select.select([told], [], [], PATIENCE)[0]:
            return "it gave no sign of life in %g s" % PATIENCE
        word = os.read(told, 1024).decode("utf-8", "replace")
    finally:
        os.close(told)
    return None if word == STANDS else word or "it was killed at once"


class _FirstWord:
    """What a supervisor tells the verb that started it: that one stands, or why not. Only once."""

    def __init__(self, fd: int):
        self.fd = fd

    def say(self, word: str) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.write(fd, word.encode("utf-8", "replace")[:1024])
            os.close(fd)


def _redirect(run: RunPaths) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(run.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for source in (nothing, log):
        os.close(source)
    # A traceback is in the log at once, whatever becomes of this process.
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _live(run: RunPaths, first: _FirstWord) -> None:
    lock = locks.acquire_within(locks.run_lock(run.id), VERBS_LOOK)
    first.say(STANDS)  # this one, or another: the lock is held
    if lock is None:
        return
    life = _Life(run)
    life.show()
    threading.Thread(target=_keep_locks, args=(run, life), daemon=True).start()
    while True:
        try:
            supervise(run)
            life.hide()  # like the run's lock: a next attempt may begin while this process copies
            from ..outputs import container_files  # it knows of runs that are reconciled, and so of this module

            container_files.gather_at_end(run, lock)
            return
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            if _gave_up(run, error):
                return
            # The job may be running: it is not left without a deadline and without a stop because a disk is full.
            time.sleep(PAUSE)


class _Life:
    """What shows those who share this home that the supervisor lives (see `origin.show_life`)."""

    def __init__(self, run: RunPaths):
        self.run = run
        self.fd = -1
        self.is_over = False
        self._lock = threading.Lock()

    def show(self) -> None:
        """Show it, if it is not shown yet: somebody who only looks holds the file for a moment too."""
        with self._lock:
            if self.fd < 0 and not self.is_over:
                self.fd = origin.show_life(self.run)

    def hide(self) -> None:
        """Show it no more."""
        with self._lock:
            self.is_over = True
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


def _keep_locks(run: RunPaths, life: _Life) -> None:
    """Keep cleaners of /tmp away from the files of this run, its job and its GPUs for as long as this process lives.

    The way to its temporary files is made anew when it was swept away, and what could not be shown of its life is.
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
            _touch(run)


def _touch(run: RunPaths) -> None:
    uuids = [gpu["uuid"] for gpu in journal.fold(run).gpus]
    gpus = [path for uuid in uuids for path in (leases.lock_path(uuid), leases.note_path(uuid, run.id))]
    for path in (locks.run_lock(run.id), locks.job_lock(run.id), *gpus, sockets.way_to_tmp(run)):
        with suppress(OSError):
            os.utime(path, follow_symlinks=False)


def _gave_up(run: RunPaths, error: Exception) -> bool:
    """A failure of ours before the job ran would come again with each try: that is the run's end."""
    state = journal.fold(run)
    if state.state not in (words.QUEUED, words.PREPARING) or (not state.between and _job_is_there(run)):
        return False
    what = "%s: %s" % (type(error).__name__, error)
    with suppress(OSError):
        finish.end(run, words.FAILED, "internal", message=what, next="see " + run.supervisor_log + " on the host")
    return True


def _job_is_there(run: RunPaths) -> bool:
    """The job was started, though that could not be written down: nobody would look after it once the run has ended."""
    try:
        job = jobs.of_attempt(run)
        if job is None:
            return False
        runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
        kind = runtime.presence(run, job).kind
        if kind == "created":
            kind = _remove_unstarted(run, job, runtime).kind
        return kind in ("running", "exited", "no_answer")
    except Exception:  # noqa: BLE001 (what failed is the question, and would fail again)
        traceback.print_exc()
        return False


def supervise(run: RunPaths) -> None:
    """One attempt after the other, until the run has ended, or the host goes down."""
    while True:
        state = journal.fold(run)
        if not state.live:
            return
        if state.between:
            _next_attempt(run)
        _attempt(run)
        state = journal.fold(run)
        if not state.between or monitor.told_to_go():
            return


def _next_attempt(run: RunPaths) -> None:
    while True:
        if journal.fold(run).stop is not None:
            finish.end(run, words.STOPPED, "stop", message="stopped before its next attempt was started")
            return
        try:
            attempts.begin(run, "retry")
            return
        except AgentError as error:  # an engine that is away comes back
            _wait(run, error)


def _attempt(run: RunPaths) -> None:
    """The steps, each of which may find its work done."""
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
        if presence.kind == "created":  # never started, and for GPUs that may be another's by now
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
        )  # not before: the job's start is what a person waits for
        uuids = [gpu["uuid"] for gpu in journal.fold(run).gpus]
        with leases.kept(uuids, run.id, job["owner"], held):
            monitor.watch(run, job, runtime)
    except Stopped as stopped:
        if not isinstance(stopped, StoppedBefore):
            _clear_away(run, job, runtime)
        finish.end(run, words.STOPPED, "stop", message="stopped before the job was started")
    except RunFailed as failure:
        _clear_away(run, job, runtime)
        finish.end(run, words.FAILED, failure.reason, message=failure.what, next=failure.next_step)
    finally:
        allocation.give_back(run, held)
        if asking is not None:
            asking.finish()


def _presence(run: RunPaths, job: AttemptJob, runtime: Runtime) -> Presence:
    """What is there of the job. An engine that does not answer is waited for: no answer is not absent."""
    state = journal.fold(run)
    if state.state == words.QUEUED and not state.prepared:  # nobody has worked on it: the engine need not be asked
        return Presence("absent")
    while True:
        presence = runtime.presence(run, job)
        if presence.kind != "no_answer":
            return presence
        if state.state != words.RUNNING and state.waiting is None:  # a job that runs waits for nobody
            state.waiting = ENGINE_SILENT
            journal.record(run, "waiting", waiting=ENGINE_SILENT)
        time.sleep(PAUSE)


def _clear_away(run: RunPaths, job: AttemptJob, runtime: Runtime) -> None:
    """Before the end is recorded: a start that failed in doubt may have started the job, and nobody reconciles an ended run.

    The container may be that of an earlier attempt, or of this one. Where what it alone holds cannot be copied, it is kept for the fetch.
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
            _wait(run, error)


def _remove_unstarted(run: RunPaths, job: AttemptJob, runtime: Runtime) -> Presence:
    """Remove a container that was never started. Return what is there then: a start that was on its way may come first."""
    while True:
        try:
            runtime.remove(run, job, unstarted=True)
            return Presence("absent")
        except EngineError as error:
            if error.kind == Kind.RUNNING:
                return _presence(run, job, runtime)
            _wait_for_engine(run, job, runtime, error)


def _make_room(run: RunPaths, job: AttemptJob, runtime: Runtime) -> None:
    """The container of an earlier attempt has the name that this one's will have. What it alone holds is copied first."""
    while True:
        check_stop(run)
        try:
            attempts.gather_earlier(run, job)
            runtime.remove(run, job)
            return
        except AgentError as error:
            _wait(run, error)


def _wait(run: RunPaths, error: AgentError) -> None:
    """Before what did not work is tried again; whoever looks is told what that is."""
    traceback.print_exc()
    if journal.fold(run).waiting != error.what:
        journal.record(run, "waiting", waiting=error.what)
    time.sleep(PAUSE)


def _bring_up(run: RunPaths, job: AttemptJob, runtime: Runtime, held: Optional[List[locks.Held]] = None) -> None:
    """Workspace, image and dependencies, GPUs, container. `held` takes the leases, for whoever gives them back if this fails."""
    held = [] if held is None else held
    journal.record(run, words.PREPARING)
    if job["attempt"] > 1:
        _make_room(run, job, runtime)
    for left in reversed(range(IMAGE_TRIES)):
        try:
            check_stop(run)
            prepared = _prepare(run, job, runtime)
            journal.record(run, "prepared", record=prepared)
            gpus, taken = allocation.wait_for_gpus(run, job, lambda: check_stop(run))
        except Stopped:
            if job["attempt"] > 1:  # the container of an earlier one may be there
                raise
            raise StoppedBefore from None
        held += taken
        try:
            check_stop(run)  # again under the lock, last thing before the job runs
            _start(run, job, runtime, prepared, gpus, held)
            return
        except ImageGone:
            if not left:
                raise
            # A run may wait for a night, and `docker system prune` comes by night. Its ticket keeps its place in line.
            leases.release(held)
            held.clear()
            journal.record(run, words.PREPARING, waiting="its image again, which was removed from the host meanwhile")
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
    """Return when an engine that is away answers again; whoever looks is told what is waited for. Raises Stopped."""
    if not error.is_away:
        raise error
    _wait(run, error)
    while runtime.presence(run, job).kind == "no_answer":
        check_stop(run)
        time.sleep(PAUSE)
    check_stop(run)
    journal.record(run, words.PREPARING)


def check_stop(run: RunPaths) -> None:
    """Raises Stopped when a stop was asked for."""
    if journal.fold(run).stop is not None:
        raise Stopped


def _note_running(run: RunPaths) -> None:
    if journal.fold(run).state != words.RUNNING:
        journal.record(run, words.RUNNING, boot_id=machine.boot_id())
