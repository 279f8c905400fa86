"""Begin the attempts of a run: the same code, image and arguments again, from a checkpoint when there is one.

The files of the present attempt are in the run's folder; those of earlier attempts (log, exit, output of the
preparation) are in attempts/N/. All attempts share the workspace. An attempt begins in a few steps, each of which may
already be done: repair the journal, move the files aside with exit.json last, and then write the event `attempt`, which
begins it.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, Mapping, Optional

from .. import error_codes, ledger
from .. import vocabulary as words
from ..errors import AgentError
from ..files import copy_below, open_regular, sync_folder
from ..outputs import container_files
from ..paths import RunPaths
from ..queue import tickets
from ..state import checkpoints, jobs, journal, moving, recovered
from ..state.jobs import file_of, needs_staging, staged

if TYPE_CHECKING:
    from ..schema.checkpoint import PlacedCheckpoint
    from ..schema.job import AttemptJob, GpuRequest
    from ..schema.requests import Carried
    from ..schema.run import Facts

UPLOADING = (words.CREATED, words.SYNCING)  # the run comes from another host: no attempt ran here

# The files that each attempt has for itself, by their names in RunPaths. The exit comes last: it shows that the others
# are moved.
_OF_AN_ATTEMPT = ("log", "log_times", "prepare_log", "stopped", "keeper", "keeper_control", "fetched", "exit")


def begin(
    run: RunPaths,
    why: str,
    *,
    wanted: Optional[str] = None,
    carried: Optional[Carried] = None,
    gpus: Optional[GpuRequest] = None,
    ask: Optional[str] = None,
    by: Optional[str] = None,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Begin the next attempt, from the checkpoint `wanted` (see `choose`). The caller holds the run's lock.

    `why`: "resume", or "retry" for an automatic retry. `carried` is what came from another host: its `checkpoint` (null:
    choose one on this host), the number of the last `attempt` there, the `earlier` attempts
    as `journal.summary` has them, and the last line of its `progress`. `before` is called right before the attempt
    begins. Raises AgentError: `no_checkpoint`, `moving`, `revoked`, and when the engine does not give the checkpoints
    in the job's container.
    """
    if carried is None:
        moving.refuse(run)
    checkpoint: Optional[PlacedCheckpoint] = None
    if carried is not None:
        checkpoint = carried["checkpoint"]
    if checkpoint is None and journal.fold(run).state not in UPLOADING:
        if checkpoints.in_container(run):
            gather_earlier(run, jobs.of_attempt_or_empty(run))
        checkpoint = choose(run, wanted)
    if journal.fold(run).state not in UPLOADING:
        put_aside(run)
    progress = carried.get("progress") if carried is not None else None
    if progress:
        os.makedirs(run.out, exist_ok=True)
        with suppress(OSError):  # an earlier attempt may have replaced the file; it is only for people
            ledger.append(run.progress, progress)
    before()
    job = jobs.of_attempt_or_empty(run)
    state = journal.fold(run)
    requested = job["resources"]["gpus"] if gpus is None else gpus
    facts: Facts = {
        "number": 1 + max(state.attempt, carried["attempt"] if carried else 0),
        "why": why,
        "checkpoint": checkpoint,
        "ticket": None if requested == 0 else tickets.draw(run.id).number,
        "gpus": state.begun.get("gpus") if gpus is None else gpus,
    }
    if carried is not None:
        facts["earlier"] = carried["earlier"]
    if ask is not None:
        facts["ask"], facts["by"] = ask, by
    with moving.beginning(run, ask):
        journal.record(run, "attempt", **facts)


def put_aside(run: RunPaths) -> None:
    """Move the files of the ended attempt to where the next attempt does not find them.

    Safe to repeat after a crash.
    """
    journal.repair_end(run)
    earlier = run.of_attempt(journal.fold(run).attempt)
    os.makedirs(earlier.aside, exist_ok=True)
    for name in _OF_AN_ATTEMPT:
        source = getattr(run, name)
        if os.path.lexists(source):
            os.rename(source, getattr(earlier, name))
    for path in (run.stop_file, run.saving):
        _remove(path)
    for folder in (run.root, run.out, earlier.aside):
        sync_folder(folder)
    if not os.path.exists(run.reserve):  # it was used for the end of this attempt
        with suppress(OSError):
            journal.keep_reserve(run)


def put_back(run: RunPaths) -> None:
    """Undo `put_aside` when no attempt began after it: that was refused, or failed. Safe to repeat after a crash.

    Without its exit.json an ended run would count as one that may still write, and would never be fetched completely.
    The caller holds the run's lock.
    """
    state = journal.fold(run)
    earlier = run.of_attempt(state.attempt)
    if state.live or os.path.exists(run.exit) or not os.path.exists(earlier.exit):
        return
    for name in _OF_AN_ATTEMPT:
        source, target = getattr(earlier, name), getattr(run, name)
        if os.path.lexists(source) and not os.path.lexists(target):
            os.rename(source, target)
    for folder in (run.root, run.out, earlier.aside):
        sync_folder(folder)


def choose(run: RunPaths, wanted: Optional[str] = None) -> Optional[PlacedCheckpoint]:
    """Return the complete checkpoint to start from: `last`, `best`, or a path as the job or the workspace names it.

    By default it is the last one, or None when there is none. Raises AgentError `no_checkpoint` when the wanted one
    does not exist.
    """
    state = journal.fold(run)
    if state.between or not state.live:  # a supervisor that was killed has not done it
        recovered.list_new(run)
    if wanted in (None, "last"):
        newest = _choose_newest(run)
        if newest is None and wanted is not None:
            raise _no_checkpoint(run, "the run %s has no complete checkpoint" % run.id)
        return newest
    if wanted == "best":
        entry = checkpoints.best(checkpoints.ledger(run))
        if entry is None or not checkpoints.is_complete(entry["file"], entry):
            raise _no_checkpoint(run, "the run %s has no complete best checkpoint" % run.id)
        return _journal_entry(run, entry["file"], entry)
    return _choose_named(run, str(wanted))


def _choose_newest(run: RunPaths) -> Optional[PlacedCheckpoint]:
    """Return the newest checkpoint of the last attempt; else the one it started from; else the newest of all."""
    state = journal.fold(run)
    entries = checkpoints.newest_first(checkpoints.ledger(run))
    own = [entry for entry in entries if entry.get("attempt", 1) == state.attempt]
    complete = next((entry for entry in own if checkpoints.is_complete(entry["file"], entry)), None)
    begun_from = state.begun.get("checkpoint")
    if complete is None and begun_from:
        before = _find_start_checkpoint(run, begun_from)
        if before is not None:
            return before
    complete = complete or next((entry for entry in entries if checkpoints.is_complete(entry["file"], entry)), None)
    return _journal_entry(run, complete["file"], complete) if complete is not None else None


def _find_start_checkpoint(run: RunPaths, checkpoint: PlacedCheckpoint) -> Optional[PlacedCheckpoint]:
    """Return the checkpoint that an attempt started from, if it still exists; it may have come from elsewhere."""
    copy = staged(run, checkpoint)
    if checkpoints.is_complete(copy, checkpoint):
        return _journal_entry(run, copy, checkpoint)
    return checkpoint if checkpoints.is_complete(file_of(run, checkpoint), checkpoint) else None


def _choose_named(run: RunPaths, path: str) -> PlacedCheckpoint:
    file = checkpoints.locate(run, jobs.read_or_empty(run), posixpath.normpath(path))
    if file is None:
        raise _no_checkpoint(run, "the run %s has no checkpoint %s" % (run.id, path))
    for entry in checkpoints.ledger(run):
        if entry["file"] == file:
            if not checkpoints.is_complete(file, entry):
                break
            return _journal_entry(run, entry["file"], entry)
    else:
        with open_regular(file) as content:
            size = os.fstat(content.fileno()).st_size
            if checkpoints.looks_complete(content, size):
                facts = {"path": posixpath.normpath(path), "size": size, "sha256": checkpoints.digest(content)}
                return _journal_entry(run, file, facts)
    raise _no_checkpoint(run, "the checkpoint %s is incomplete" % path)


def _no_checkpoint(run: RunPaths, what: str) -> AgentError:
    paths = [entry["path"] for entry in checkpoints.newest_first(checkpoints.ledger(run))]
    listed = "it has " + ", ".join(paths[:5]) if paths else "without --from it starts from the beginning"
    return AgentError(error_codes.NO_CHECKPOINT, what, listed, exit_code=words.EXIT_USAGE)


def _journal_entry(run: RunPaths, file: str, entry: Mapping[str, object]) -> PlacedCheckpoint:
    """Return the entry as the journal stores it; `file` is relative to the run's folder when it is in there."""
    inside = os.path.relpath(file, os.path.realpath(run.root))
    return {**checkpoints.brief(entry), "file": file if inside.startswith(os.pardir) else inside}


def stage(run: RunPaths) -> None:
    """Copy the checkpoint of the present attempt to where the job sees it. Safe to repeat.

    It is added to the ledger too, so that the next attempt has a checkpoint even when this one fails before it saves.
    """
    checkpoint = journal.fold(run).begun.get("checkpoint")
    if checkpoint is None or not needs_staging(checkpoint):
        return
    target = staged(run, checkpoint)
    if not checkpoints.is_complete(target, checkpoint):
        # The workspace belongs to the job: a link there could point to any file of the user on this host.
        copy_below(file_of(run, checkpoint), run.workspace, words.RESUME_IN_WORKSPACE, os.path.basename(target))
    path = words.RESUME_IN_WORKSPACE + "/" + os.path.basename(target)
    if all(entry["path"] != path for entry in checkpoints.ledger(run)):
        line = {**checkpoint, "path": path, "complete": True, "best": False, "last": False}
        ledger.append(run.ledger, line)


def gather_earlier(run: RunPaths, job: AttemptJob) -> None:
    """Copy the files that only the container of an earlier attempt has, before it is removed.

    Raises AgentError: `not_copied`, and when the engine does not answer. Then the container stays.
    """
    skipped = [entry for entry in container_files.gather_all(run, job) if entry["lost"]]
    if skipped:
        what = "gpurun could not copy a file of an earlier attempt out of its container: %(path)s: %(why)s" % skipped[0]
        name = words.CONTAINER_PREFIX + run.id
        by_hand = "try again; or copy it by hand on the host (docker cp), then: docker rm %s" % name
        raise AgentError(error_codes.NOT_COPIED, what, by_hand, where=name)


def _remove(path: str) -> None:
    """Remove a file, or whatever the job has put in its place."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
