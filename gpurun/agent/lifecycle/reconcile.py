"""Compare the journal of each run with the evidence on the host, and repair runs whose supervisor died.

`TABLE` is the decision table of the design: the first line that matches determines the action.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from .. import clocks, machine, runtimes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json, write_json
from ..host import locks
from ..paths import HostPaths, RunPaths
from ..runtimes import Presence
from ..state import jobs, journal, origin
from . import attempts, finish, supervisor

if TYPE_CHECKING:
    from ..schema.run import UploadNote

UPLOAD_PATIENCE = 3600.0  # seconds without a byte of an upload, after which it counts as abandoned

NOTHING = "nothing"
FAIL_SYNC = "failed(sync)"
SUPERVISE = "supervise"
RECORD_EXIT = "record exit"
LOST_REBOOT = "lost(reboot)"
LOST_REMOVED = "lost(removed)"

WAITING = (words.QUEUED, words.PREPARING)
SUPERVISED = (*WAITING, words.RUNNING)


@dataclass(frozen=True)
class Evidence:
    """Hold the facts about a run whose lock is free."""

    state: str
    presence: str  # of its container or process: see Presence.kind
    exit_code: Optional[int] = None
    made_up: bool = False  # the exit code is the engine's, not the job's
    same_boot: bool = True
    ended_before_boot: bool = False  # the exit is older than this boot, so the reboot did not cause it
    upload_idle: float = 0.0  # seconds
    between: bool = False  # an attempt has ended, and the next has not begun


@dataclass(frozen=True)
class Line:
    states: Tuple[str, ...]
    presences: Tuple[str, ...]
    then: str
    only_if: Callable[[Evidence], bool] = lambda _: True


ANY = ("absent", "created", "running", "exited", "no_answer")
TABLE = (
    Line((words.CREATED, words.SYNCING), ANY, FAIL_SYNC, lambda evidence: evidence.upload_idle > UPLOAD_PATIENCE),
    Line((words.CREATED, words.SYNCING), ANY, NOTHING),
    Line(WAITING, ANY, SUPERVISE, lambda evidence: evidence.between),
    Line(SUPERVISED, ("no_answer",), NOTHING),
    Line(WAITING, ("absent", "created"), SUPERVISE),
    Line(SUPERVISED, ("running",), SUPERVISE),
    Line(
        SUPERVISED,
        ("exited",),
        LOST_REBOOT,
        lambda evidence: (
            (evidence.made_up or evidence.exit_code == 255)
            and not evidence.same_boot
            and not evidence.ended_before_boot
        ),
    ),
    Line(SUPERVISED, ("exited",), RECORD_EXIT),
    Line((words.RUNNING,), ("created",), SUPERVISE),
    Line((words.RUNNING,), ("absent",), LOST_REBOOT, lambda evidence: not evidence.same_boot),
    Line((words.RUNNING,), ("absent",), LOST_REMOVED),
    Line(words.ENDS, ANY, NOTHING),
)


def decide(evidence: Evidence) -> str:
    return next(
        line.then
        for line in TABLE
        if evidence.state in line.states and evidence.presence in line.presences and line.only_if(evidence)
    )


def reconcile_runs(host: HostPaths) -> Dict[str, str]:
    """Reconcile every run of this host whose lock is free. Return, by id, why a run could not be reconciled.

    Each run is handled separately: a failure does not affect the others. Raises AgentError when no lock can be taken.
    """
    locks.folder()
    failures = {run.id: reconcile_run(host, run) for run in host.all_runs()}
    return {run_id: why for run_id, why in failures.items() if why is not None}


def reconcile_run(host: HostPaths, run: RunPaths) -> Optional[str]:
    """Reconcile one run, unless a supervisor runs it, it has ended, or it does not belong to this host.

    Return why that was not possible; the next verb tries again. A full disk or a quota may prevent an end from being
    recorded, but not the answers about the run.
    """
    try:
        _reconcile_run(run)
        return None
    except Exception as error:  # noqa: BLE001 (the answer reports it with this run)
        return "the run cannot be reconciled: %s" % describe(error)


def _reconcile_run(run: RunPaths) -> None:
    if os.path.exists(run.exit) and finish.is_finished(run):
        return
    if not origin.is_of_this_host(run):
        return
    # Also after an end: the secrets there may be those of an attempt that begins.
    held = locks.acquire(locks.run_lock(run.id))
    if held is None:
        return  # its supervisor does it
    action = NOTHING
    try:
        action = _decide_and_record(run)
    finally:
        held.release()
    if action == SUPERVISE or (action in (RECORD_EXIT, LOST_REBOOT) and _has_container(run)):
        supervisor.launch(run)  # for an ended run, it gathers the files that only the container has


def _has_container(run: RunPaths) -> bool:
    return bool((jobs.read_or_empty(run).get("host") or {}).get("runtime") == "docker")


def _decide_and_record(run: RunPaths) -> str:
    """Under the run's lock: decide by the evidence, and record what is proven."""
    state = journal.fold(run)
    job = jobs.of_attempt(run, state)
    if job is None or state.newer or state.damaged:
        return NOTHING
    if not state.live:
        attempts.put_back(run)
        finish.finish(run, job)  # for a process that was killed between the end and this call
        return NOTHING
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    syncing = state.state in (words.CREATED, words.SYNCING)
    presence = Presence("absent") if syncing or state.between else runtime.presence(run, job)
    if presence.kind == "exited" and state.stop is None:
        presence = runtime.ended(run, job, presence, state.started)
    action = decide(
        Evidence(
            state=state.state,
            presence=presence.kind,
            exit_code=presence.exit_code,
            made_up=presence.made_up,
            same_boot=machine.is_this_boot(state.boot_id),
            ended_before_boot=presence.finished_at is not None and presence.finished_at < machine.booted_at(),
            upload_idle=_idle_seconds(run, state) if syncing else 0.0,
            between=state.between,
        )
    )
    # The lock files of a live supervisor were removed, or it is on a host that cannot be distinguished from this one.
    if action != NOTHING and (origin.lives(run) or locks.holders(locks.run_lock(run.id))):
        return NOTHING
    if action in ENDINGS:
        ENDINGS[action](run, state, presence)
        return SUPERVISE if journal.fold(run).live else action  # an attempt has ended, and is retried
    return action


def _idle_seconds(run: RunPaths, state: journal.Run) -> float:
    """Return the seconds since the upload last progressed; 0 while it progresses, and before the first check.

    What has arrived is compared with the state at an earlier check, for the code and for a checkpoint from another
    host.
    """
    if state.last and clocks.since(state.last) <= UPLOAD_PATIENCE:
        return 0.0
    earlier_check: Optional[UploadNote] = read_json(run.upload)
    seen: UploadNote = {**clocks.mark(), "arrived": _arrived(run)}
    idle = (
        clocks.between(earlier_check, seen)
        if earlier_check is not None and earlier_check.get("arrived") == seen["arrived"]
        else None
    )
    if idle is None:
        with suppress(OSError):  # a full disk: a later call fails the upload, when there is space
            write_json(run.upload, seen)
        return 0.0
    return idle


def _arrived(run: RunPaths) -> List[int]:
    """Return the files, the bytes and the newest change of what an upload has brought so far."""
    count = size = changed = 0
    for top in (run.snapshot, run.carried):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    status = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:  # rsync has renamed it
                    continue
                count, size, changed = count + 1, size + status.st_size, max(changed, status.st_ctime_ns)
    return [count, size, changed]


def describe(error: Exception) -> str:
    """Return in words what prevents gpurun from reading or writing a run."""
    if isinstance(error, OSError):
        return "%s%s" % (os.strerror(error.errno or 0), ": %s" % error.filename if error.filename else "")
    return str(error) if isinstance(error, AgentError) else "%s: %s" % (type(error).__name__, error)


def _fail_sync(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end(
        run,
        words.FAILED,
        "sync",
        message="the upload of the project broke an hour ago or earlier",
        next="submit again",
    )


def _record_exit(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end_by_presence(run, state, presence)


def _lost_reboot(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end(run, words.LOST, "reboot", message="the host was restarted while the job ran")


def _end_gone(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end_gone(run, state)


ENDINGS: Dict[str, Callable[[RunPaths, journal.Run, Presence], None]] = {
    FAIL_SYNC: _fail_sync,
    RECORD_EXIT: _record_exit,
    LOST_REBOOT: _lost_reboot,
    LOST_REMOVED: _end_gone,
}
