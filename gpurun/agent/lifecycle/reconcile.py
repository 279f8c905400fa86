"""Compare the journal of each run with the evidence on the host, and repair runs whose supervisor died.

`TABLE` is the design's, as data: the first line that fits says what is done.
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

UPLOAD_PATIENCE = 3600.0  # seconds without a byte of an upload, after which nobody comes back for it

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
    """What is known of a run whose lock is free."""

    state: str
    presence: str  # of its container or process: see Presence.kind
    exit_code: Optional[int] = None
    same_boot: bool = True
    ended_before_boot: bool = False  # the exit is older than this boot: the reboot did not cause it
    upload_idle: float = 0.0  # seconds
    between: bool = False  # an attempt has ended, and the next one is to begin


@dataclass(frozen=True)
class Line:
    states: Tuple[str, ...]
    presences: Tuple[str, ...]
    then: str
    only_if: Callable[[Evidence], bool] = lambda _: True


ANY = ("absent", "created", "running", "exited", "no_answer")
TABLE = (
    Line((words.CREATED, words.SYNCING), ANY, FAIL_SYNC, lambda seen: seen.upload_idle > UPLOAD_PATIENCE),
    Line((words.CREATED, words.SYNCING), ANY, NOTHING),
    Line(WAITING, ANY, SUPERVISE, lambda seen: seen.between),
    Line(SUPERVISED, ("no_answer",), NOTHING),
    Line(WAITING, ("absent", "created"), SUPERVISE),
    Line(SUPERVISED, ("running",), SUPERVISE),
    Line(
        SUPERVISED,
        ("exited",),
        LOST_REBOOT,
        lambda seen: seen.exit_code == 255 and not seen.same_boot and not seen.ended_before_boot,
    ),
    Line(SUPERVISED, ("exited",), RECORD_EXIT),
    Line((words.RUNNING,), ("created",), SUPERVISE),
    Line((words.RUNNING,), ("absent",), LOST_REBOOT, lambda seen: not seen.same_boot),
    Line((words.RUNNING,), ("absent",), LOST_REMOVED),
    Line(words.ENDS, ANY, NOTHING),
)


def decide(seen: Evidence) -> str:
    return next(
        line.then
        for line in TABLE
        if seen.state in line.states and seen.presence in line.presences and line.only_if(seen)
    )


def reconcile_runs(host: HostPaths) -> Dict[str, str]:
    """Look after every run of this host whose lock is free. Return, by id, why that could not be done.

    Each run by itself: one that cannot be looked after takes no other along. Raises AgentError when no lock can be had.
    """
    locks.folder()
    failures = {run.id: reconcile_run(host, run) for run in host.all_runs()}
    return {run_id: why for run_id, why in failures.items() if why is not None}


def reconcile_run(host: HostPaths, run: RunPaths) -> Optional[str]:
    """Look after one run, unless its supervisor does, it has ended, or it is not of this host.

    Return why that could not be done; the next verb tries again. A full disk or a quota keeps an end from being recorded,
    not from being asked about.
    """
    try:
        _reconcile_run(run)
        return None
    except Exception as error:  # noqa: BLE001 (whoever asks is told, with this run)
        return "it cannot be looked after: %s" % describe(error)


def _reconcile_run(run: RunPaths) -> None:
    if os.path.exists(run.exit) and finish.is_finished(run):
        return
    if not origin.is_of_this_host(run):
        return
    # Behind an end too: the secrets that are there may be those of an attempt that begins.
    held = locks.acquire(locks.run_lock(run.id))
    if held is None:
        return  # its supervisor will
    action = NOTHING
    try:
        action = _act(run)
    finally:
        held.release()
    if action == SUPERVISE or (action in (RECORD_EXIT, LOST_REBOOT) and _has_container(run)):
        supervisor.launch(run)  # of a run that has ended it gathers what the container alone holds


def _has_container(run: RunPaths) -> bool:
    return bool((jobs.read_or_empty(run).get("host") or {}).get("runtime") == "docker")


def _act(run: RunPaths) -> str:
    """Under the run's lock: weigh the evidence and record what is proven."""
    state = journal.fold(run)
    job = jobs.of_attempt(run, state)
    if job is None or state.newer or state.damaged:
        return NOTHING
    if not state.live:
        attempts.put_back(run)
        finish.finish(run, job)  # for one that was killed between the end and this
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
            same_boot=machine.is_this_boot(state.boot_id),
            ended_before_boot=presence.finished_at is not None and presence.finished_at < machine.booted_at(),
            upload_idle=_idle(run, state) if syncing else 0.0,
            between=state.between,
        )
    )
    # The files of a live supervisor were swept away; or it is on a machine that cannot be told from this one.
    if action != NOTHING and (origin.lives(run) or locks.holders(locks.run_lock(run.id))):
        return NOTHING
    if action in ENDINGS:
        ENDINGS[action](run, state, presence)
        return SUPERVISE if journal.fold(run).live else action  # an attempt has ended, and is retried
    return action


def _idle(run: RunPaths, state: journal.Run) -> float:
    """Seconds since an upload was first seen to stand where it stands now; 0 while it goes on, and before it is looked at.

    What has come is compared with what had come at an earlier look, of the code and of a checkpoint from another host.
    """
    if state.last and clocks.since(state.last) <= UPLOAD_PATIENCE:
        return 0.0
    noted: Optional[UploadNote] = read_json(run.upload)
    seen: UploadNote = {**clocks.mark(), "arrived": _arrived(run)}
    standing = clocks.between(noted, seen) if noted is not None and noted.get("arrived") == seen["arrived"] else None
    if standing is None:
        with suppress(OSError):  # a full disk: it is given up by whoever looks when there is room
            write_json(run.upload, seen)
        return 0.0
    return standing


def _arrived(run: RunPaths) -> List[int]:
    """Files, bytes and the newest change of what an upload has brought so far."""
    count = size = changed = 0
    for top in (run.snapshot, run.carried):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    found = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:  # rsync has renamed it
                    continue
                count, size, changed = count + 1, size + found.st_size, max(changed, found.st_ctime_ns)
    return [count, size, changed]


def describe(error: Exception) -> str:
    """Return in words what keeps us from reading or writing a run."""
    if isinstance(error, OSError):
        return "%s%s" % (os.strerror(error.errno or 0), ": %s" % error.filename if error.filename else "")
    return str(error) if isinstance(error, AgentError) else "%s: %s" % (type(error).__name__, error)


def _fail_sync(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end(
        run,
        words.FAILED,
        "sync",
        message="the upload of the project broke off an hour ago or more",
        next="submit again",
    )


def _record_exit(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end_by_presence(run, state, presence)


def _lost_reboot(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end(run, words.LOST, "reboot", message="the host was restarted while the job ran")


def _gone(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    finish.end_gone(run, state)


ENDINGS: Dict[str, Callable[[RunPaths, journal.Run, Presence], None]] = {
    FAIL_SYNC: _fail_sync,
    RECORD_EXIT: _record_exit,
    LOST_REBOOT: _lost_reboot,
    LOST_REMOVED: _gone,
}
