"""The attempts of a run: the same code, image and arguments once more, from a checkpoint where there is one.

The present attempt has its files where a first one has them; what earlier ones left behind (log, exit, what preparing said)
lies in attempts/N/. The workspace is one for all of them. To begin an attempt is a few steps, each of which may be found
done: heal the journal, put the files aside, exit.json last, and then the event `attempt`, by which it has begun.
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

UPLOADING = (words.CREATED, words.SYNCING)  # it comes from another host: nothing of it was here

# What each attempt has for itself, by its name in RunPaths. The exit comes last: it says that the others are in their place.
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
    """Begin the next attempt, from the checkpoint that is `wanted` (see `choose`). The caller holds the run's lock.

    `why`: "resume", or "retry" for one that begins by itself. `carried` is what came from another host: the `checkpoint` to
    take in place of one of ours (null: one of ours it is), the `attempt` that was the last there, the `earlier` ones, as
    `journal.summary` has them, and the last line of its `progress`. `gpus`: how many from now on, where that is another number.
    `ask` is the question by which it begins, of the user `by`. `before` is called last before it has begun.
    Raises AgentError: `no_checkpoint`, `moving`, `revoked`, and when the checkpoints in the job's container cannot be had from its
    engine.
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
        with suppress(OSError):  # what an earlier attempt here has put in its place; it is for people alone
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
    """Move what the ended attempt left behind to where the next one does not find it. Safe to repeat after a crash."""
    journal.repair_end(run)
    earlier = run.of_attempt(journal.fold(run).attempt)
    os.makedirs(earlier.aside, exist_ok=True)
    for name in _OF_AN_ATTEMPT:
        source = getattr(run, name)
        if os.path.lexists(source):
            os.rename(source, getattr(earlier, name))
    for path in (run.stop_file, run.saving):
        _drop(path)
    for folder in (run.root, run.out, earlier.aside):
        sync_folder(folder)
    if not os.path.exists(run.reserve):  # given up for the end of this one
        with suppress(OSError):
            journal.keep_reserve(run)


def put_back(run: RunPaths) -> None:
    """Undo `put_aside` where no attempt has begun behind it: that was refused, or failed. Safe to repeat after a crash.

    Without its exit.json an ended run would count as one that may still write, which is never fetched whole. The caller
    holds the run's lock.
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
    """The whole checkpoint to go on from: `last`, `best`, or a path as the job or the workspace knows it.

    Without a wish it is the last one, or None where there is none. Raises AgentError `no_checkpoint` for a wish that
    cannot be granted.
    """
    state = journal.fold(run)
    if state.between or not state.live:  # a supervisor that was killed too has not done it
        recovered.take_in(run)
    if wanted in (None, "last"):
        found = _newest(run)
        if found is None and wanted is not None:
            raise _no_checkpoint(run, "the run %s has no whole checkpoint" % run.id)
        return found
    if wanted == "best":
        entry = checkpoints.best(checkpoints.ledger(run))
        if entry is None or not checkpoints.is_complete(entry["file"], entry):
            raise _no_checkpoint(run, "the run %s has no whole checkpoint that is its best" % run.id)
        return _told(run, entry["file"], entry)
    return _named(run, str(wanted))


def _newest(run: RunPaths) -> Optional[PlacedCheckpoint]:
    """Of what the last attempt saved; else what it went on from itself; else of all that there is."""
    state = journal.fold(run)
    entries = checkpoints.newest_first(checkpoints.ledger(run))
    own = [entry for entry in entries if entry.get("attempt", 1) == state.attempt]
    whole = next((entry for entry in own if checkpoints.is_complete(entry["file"], entry)), None)
    begun_from = state.begun.get("checkpoint")
    if whole is None and begun_from:
        before = _found_again(run, begun_from)
        if before is not None:
            return before
    whole = whole or next((entry for entry in entries if checkpoints.is_complete(entry["file"], entry)), None)
    return _told(run, whole["file"], whole) if whole is not None else None


def _found_again(run: RunPaths, checkpoint: PlacedCheckpoint) -> Optional[PlacedCheckpoint]:
    """The checkpoint that an attempt went on from, if it is still there; it may have come from elsewhere."""
    copy = staged(run, checkpoint)
    if checkpoints.is_complete(copy, checkpoint):
        return _told(run, copy, checkpoint)
    return checkpoint if checkpoints.is_complete(file_of(run, checkpoint), checkpoint) else None


def _named(run: RunPaths, path: str) -> PlacedCheckpoint:
    file = checkpoints.locate(run, jobs.read_or_empty(run), posixpath.normpath(path))
    if file is None:
        raise _no_checkpoint(run, "there is no checkpoint %s in the run %s" % (path, run.id))
    for entry in checkpoints.ledger(run):
        if entry["file"] == file:
            if not checkpoints.is_complete(file, entry):
                break
            return _told(run, entry["file"], entry)
    else:
        with open_regular(file) as content:
            size = os.fstat(content.fileno()).st_size
            if checkpoints.looks_complete(content, size):
                told = {"path": posixpath.normpath(path), "size": size, "sha256": checkpoints.digest(content)}
                return _told(run, file, told)
    raise _no_checkpoint(run, "the checkpoint %s is not whole" % path)


def _no_checkpoint(run: RunPaths, what: str) -> AgentError:
    there = [entry["path"] for entry in checkpoints.newest_first(checkpoints.ledger(run))]
    listed = "it has " + ", ".join(there[:5]) if there else "without --from it starts from the beginning"
    return AgentError(error_codes.NO_CHECKPOINT, what, listed, exit_code=words.EXIT_USAGE)


def _told(run: RunPaths, file: str, entry: Mapping[str, object]) -> PlacedCheckpoint:
    """Return the entry as the journal keeps it; `file` is relative to the run's folder where it lies in there."""
    inside = os.path.relpath(file, os.path.realpath(run.root))
    return {**checkpoints.brief(entry), "file": file if inside.startswith(os.pardir) else inside}


def stage(run: RunPaths) -> None:
    """Put the checkpoint of the present attempt where the job sees it. Safe to repeat.

    It comes into the ledger too, so that an attempt that fails before it has saved leaves the next one something.
    """
    checkpoint = journal.fold(run).begun.get("checkpoint")
    if checkpoint is None or not needs_staging(checkpoint):
        return
    target = staged(run, checkpoint)
    if not checkpoints.is_complete(target, checkpoint):
        # The workspace is the job's: a link there could lead to any file of the user's on this host.
        copy_below(file_of(run, checkpoint), run.workspace, words.RESUME_IN_WORKSPACE, os.path.basename(target))
    path = words.RESUME_IN_WORKSPACE + "/" + os.path.basename(target)
    if all(entry["path"] != path for entry in checkpoints.ledger(run)):
        line = {**checkpoint, "path": path, "complete": True, "best": False, "last": False}
        ledger.append(run.ledger, line)


def gather_earlier(run: RunPaths, job: AttemptJob) -> None:
    """Copy what an earlier attempt wrote in its container alone, which is to go.

    Raises AgentError: `not_copied`, and when the engine is away. The container stays then.
    """
    skipped = [one for one in container_files.gather_all(run, job) if one["lost"]]
    if skipped:
        what = "what an earlier attempt wrote in its container could not be copied: %(path)s: %(why)s" % skipped[0]
        name = words.CONTAINER_PREFIX + run.id
        by_hand = "try again; or take it by hand there (docker cp), and then: docker rm %s" % name
        raise AgentError(error_codes.NOT_COPIED, what, by_hand, where=name)


def _drop(path: str) -> None:
    """A file, or whatever the job has made of its name."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
