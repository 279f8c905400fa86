"""What is done with a run whose supervisor may be dead. Every verb tends first; a question never changes a job.

`TABLE` is the design's, as data: the first line that fits says what is done.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple

from . import attempts, endings, facts, journal, locks, runtimes, supervisor
from . import vocabulary as words
from .files import read_json
from .paths import HostPaths, RunPaths
from .runtimes import Presence

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


def tend(host: HostPaths) -> None:
    """Look after every run of this host whose lock is free."""
    for run in host.all_runs():
        tend_run(host, run)


def tend_run(host: HostPaths, run: RunPaths) -> None:
    """Look after one run, unless its supervisor does, it has ended, or it is not of this host."""
    if os.path.exists(run.exit):
        endings.wipe(run)  # for one that was killed between the end and this
        return
    if not is_of_this_host(run):
        return
    held = locks.acquire(locks.run_lock(run.id))
    if held is None:
        return  # its supervisor will
    action = NOTHING
    try:
        action = _act(run)
    except OSError as error:
        # A full disk keeps an end from being recorded, not from being asked about: the next verb tries again.
        if error.errno != errno.ENOSPC:
            raise
    finally:
        held.release()
    if action == SUPERVISE or (action in (RECORD_EXIT, LOST_REBOOT) and _has_container(run)):
        supervisor.launch(run)  # of a run that has ended it gathers what the container alone holds


def _has_container(run: RunPaths) -> bool:
    return bool((read_json(run.job) or {}).get("host", {}).get("runtime") == "docker")


def is_of_this_host(run: RunPaths) -> bool:
    """False for a run of another machine that shares this home, of a newer gpurun, and for what is no run at all."""
    host = (read_json(run.job) or {}).get("host", {})
    return host.get("machine_id") == facts.machine_id() and host.get("runtime") in runtimes.RUNTIMES


def _act(run: RunPaths) -> str:
    """Under the run's lock: weigh the evidence and record what is proven."""
    state = journal.fold(run)
    job = attempts.job_of(run, state)
    if job is None:
        return NOTHING
    if not state.live:  # its exit is put aside, and nobody went on with the next attempt
        endings.wipe(run)
        return NOTHING
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    syncing = state.state in (words.CREATED, words.SYNCING)
    presence = Presence("absent") if syncing or state.between else runtime.presence(run, job)
    action = decide(
        Evidence(
            state=state.state,
            presence=presence.kind,
            exit_code=presence.exit_code,
            same_boot=state.boot_id in (None, facts.boot_id()),
            ended_before_boot=presence.finished_at is not None and presence.finished_at < facts.booted_at(),
            upload_idle=_idle(run) if syncing else 0.0,
            between=state.between,
        )
    )
    if action != NOTHING and locks.holders(locks.run_lock(run.id)):  # the files of a live supervisor were swept away
        return NOTHING
    if action in ENDINGS:
        ENDINGS[action](run, state, presence)
        return SUPERVISE if journal.fold(run).live else action  # an attempt has ended, and is retried
    return action


def _idle(run: RunPaths) -> float:
    """Seconds since the last sign of an upload. Arrival is told by ctime: rsync sets a file's mtime to the laptop's."""
    last = max(os.stat(run.events).st_ctime if os.path.exists(run.events) else 0.0, os.stat(run.root).st_ctime)
    if time.time() - last <= UPLOAD_PATIENCE:
        return 0.0
    for folder, _, names in os.walk(run.snapshot):
        for name in [".", *names]:
            last = max(last, os.lstat(os.path.join(folder, name)).st_ctime)
    return time.time() - last


def _fail_sync(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    endings.end(
        run,
        words.FAILED,
        "sync",
        message="the upload of the project broke off an hour ago or more",
        next="submit again",
    )


def _record_exit(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    endings.end_by_presence(run, state, presence)


def _lost_reboot(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    endings.end(run, words.LOST, "reboot", message="the host was restarted while the job ran")


def _gone(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    endings.end_gone(run, state)


ENDINGS: Dict[str, Callable[[RunPaths, journal.Run, Presence], None]] = {
    FAIL_SYNC: _fail_sync,
    RECORD_EXIT: _record_exit,
    LOST_REBOOT: _lost_reboot,
    LOST_REMOVED: _gone,
}
