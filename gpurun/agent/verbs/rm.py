"""`rm`: remove ended runs, with their containers: `{runs, stamps: {id: stamp or null}}` -> `{removed, freed, left}`.

`stamps` is what the laptop saw when it decided; a run that has changed since is refused. The run's lock is held from
the check to the removal, so that no attempt begins in between. `left` names what could not be removed: `[{run, path,
bytes, why}]`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, List, Mapping, Optional, Set

from .. import error_codes, runtimes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import remove_tree
from ..host import locks
from ..lifecycle import finish, hooks, reconcile, records, shells, unfetched
from ..outputs import container_files
from ..paths import REMOVED_RUN, HostPaths, RunPaths
from ..state import jobs, journal, origin

if TYPE_CHECKING:
    from ..schema.answers import RmAnswer
    from ..schema.files import LeftOfRun
    from ..schema.requests import RmRequest

PATIENCE = 20.0  # seconds to wait for the supervisor of an ended run


def answer(request: RmRequest, host: HostPaths) -> RmAnswer:
    """Refuse all when one run is live or has changed.

    A run that is already gone is not an error: removing is safe to repeat.

    Raises AgentError: `live`, `changed_since`, `busy`, and when an engine does not answer.
    """
    ids = list(dict.fromkeys(str(run_id) for run_id in request["runs"]))
    runs = records.find_all(host, [run_id for run_id in ids if os.path.isdir(host.run(run_id).root)])
    stamps: Mapping[str, Optional[str]] = request.get("stamps") or {}
    left: List[LeftOfRun] = []
    freed = 0
    for run in runs:  # before the first lock is taken: a supervisor that is started here would inherit it
        records.refuse_newer(run)
        reconcile.reconcile_run(host, run)
        _refuse_live(run)
    with ExitStack() as stack:
        for run in runs:
            stack.callback(_lock(run).release)
            stack.callback(container_files.hold(run).release)
            _refuse_live(run)  # once more: an attempt may have begun before the lock was taken
            # Null: a container held unknown files, and the user agreed to lose them.
            stamp = stamps.get(run.id)
            if stamp is not None and unfetched.stamp_of(run, jobs.of_attempt_or_empty(run), locked=True) != stamp:
                raise _changed_error(run)
        for run in runs:
            freed += _remove(run, left)
    listed = {entry["run"] for entry in left}
    for root in host.roots:
        left += _sweep(root, listed)
    return {"removed": [run.id for run in runs], "freed": freed, "left": left}


def _refuse_live(run: RunPaths) -> None:
    if journal.fold(run).live:
        why = origin.doubt(run)
        next_step = (
            "gpurun stop " + run.id if why is None else "when that host is gone for good: " + origin.ABANDON % run.id
        )
        raise AgentError(
            error_codes.LIVE, why or "the run %s is still live" % run.id, next_step, exit_code=words.EXIT_USAGE
        )
    shells.refuse(run)
    if hooks.running(run):
        what = "a hook of the run %s still runs" % run.id
        next_step = "gpurun fetch --watch %s, which waits for it; then remove it" % run.id
        raise AgentError(error_codes.LIVE, what, next_step, exit_code=words.EXIT_USAGE)


def _changed_error(run: RunPaths) -> AgentError:
    what = "the run %s has changed since it was checked; nothing was removed" % run.id
    return AgentError(error_codes.CHANGED_SINCE, what, "gpurun fetch %s, then remove it again" % run.id)


def _lock(run: RunPaths) -> locks.Held:
    """Take the run's lock. The supervisor of a run that has just ended may hold it for a moment."""
    held = locks.acquire_within(locks.run_lock(run.id), PATIENCE)
    if held is None:
        raise AgentError(error_codes.BUSY, "run %s is still ending" % run.id, "try again in a minute")
    return held


def _remove(run: RunPaths, left: List[LeftOfRun]) -> int:
    """Remove one run. Return the bytes that were freed, and add to `left` what stays."""
    before = finish.disk_use(run)
    job = jobs.of_attempt(run)
    if job is not None and origin.is_of_this_host(run):
        runtimes.load(job["host"]["runtime"], job["host"]["engine"]).remove(run, job)
    gone = run.host.removed_run(run.id)
    while os.path.lexists(gone):  # an earlier run with that id, of which something could not be removed
        gone += "_"
    os.rename(run.root, gone)
    stays = _clear(gone, run.id)
    left += stays
    shutil.rmtree(run.secrets, ignore_errors=True)
    return before - sum(int(entry["bytes"]) for entry in stays)


def _sweep(host: HostPaths, listed: Set[str]) -> List[LeftOfRun]:
    """Try again to remove what an earlier removal left; return what still stays."""
    left: List[LeftOfRun] = []
    for name in sorted(os.listdir(host.runs)) if os.path.isdir(host.runs) else []:
        run_id = name[len(REMOVED_RUN) :].rstrip("_")
        if name.startswith(REMOVED_RUN) and run_id not in listed:
            left += _clear(os.path.join(host.runs, name), run_id)
    return left


def _clear(folder: str, run_id: str) -> List[LeftOfRun]:
    """Remove a tree. Return what could not be removed, in one entry."""
    reasons: List[str] = []

    def note(path: str, error: OSError) -> None:
        reasons.append("%s: %s" % (os.path.relpath(path, folder), os.strerror(error.errno or 0)))

    remove_tree(folder, note)
    if not os.path.isdir(folder):
        return []
    return [
        {
            "run": run_id,
            "path": folder,
            "bytes": finish.disk_use(RunPaths(folder)),
            "why": reasons[0] if reasons else "",
        }
    ]
