"""`checkpoint`: one checkpoint of a run, to be fetched: `{run, which: "best"|"last"|SHA-256, ledgers}`.

-> `{run: RunRecord, ledgers, count, checkpoint}`: null, or what the ledger tells of it with `folder` and `name`, where it lies;
`as`, its place in the folder that a run is fetched into; and `mtime_ns`, `ctime_ns`, `inode`. Whether it is what the ledger
tells is for the laptop to check, on what has come.
"""

from __future__ import annotations

import os
import posixpath
import time
from typing import TYPE_CHECKING, List, Optional

from .. import ledger
from .. import vocabulary as words
from ..lifecycle import reconcile, records
from ..outputs import outputs
from ..outputs.container_files import collect
from ..paths import HostPaths, RunPaths
from ..state import checkpoints, jobs, ledger_sync, recovered

if TYPE_CHECKING:
    from ..schema.answers import CheckpointAnswer, CheckpointFile
    from ..schema.checkpoint import FoundEntry, LedgerEntry
    from ..schema.requests import CheckpointRequest

PATIENCE = 5.0  # seconds for the ledger to tell of a file that is written anew just now
TICK = 0.2


def answer(request: CheckpointRequest, host: HostPaths) -> CheckpointAnswer:
    run = records.find(host, str(request.get("run")))
    reconcile.reconcile_run(host, run)
    live = not os.path.exists(run.exit)
    if checkpoints.in_container(run):
        collect(run, jobs.of_attempt_or_empty(run), live)
    if not live:  # a supervisor that was killed too has not done it
        recovered.take_in(run)
    entry = _choose(run, request["which"], live)
    return {
        "run": records.record_of(run),
        "ledgers": ledger_sync.ledgers(request, host, [run]),
        "count": len(checkpoints.ledger(run)),
        "checkpoint": None if entry is None else _with_file(run, entry),
    }


def _pick(which: str, entries: List[ledger.E]) -> Optional[ledger.E]:
    if which == "best":
        return ledger.best(entries)
    return ledger.last(entries) if which == "last" else ledger.of_content(entries, which)


def _choose(run: RunPaths, which: str, live: bool) -> Optional[FoundEntry]:
    """The one of those that are there. When the ledger means another one, that may be there in a moment."""
    until = time.monotonic() + PATIENCE
    while True:
        meant = _pick(which, ledger.read(run.ledger, run.ledger_cache))
        there = _pick(which, checkpoints.ledger(run))
        if not live or meant is None or _is(there, meant) or time.monotonic() > until:
            return there
        time.sleep(TICK)


def _is(one: Optional[FoundEntry], other: LedgerEntry) -> bool:
    return one is not None and all(one.get(key) == other.get(key) for key in ("path", "sha256"))


def _with_file(run: RunPaths, entry: FoundEntry) -> Optional[CheckpointFile]:
    try:
        found = os.stat(entry["file"])
    except OSError:  # removed in this moment
        return None
    folder, name = os.path.split(entry["file"])
    return {
        **checkpoints.brief(entry),
        "folder": folder,
        "name": name,
        "as": _as_fetched(run, entry),
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "inode": found.st_ino,
    }


def _as_fetched(run: RunPaths, entry: FoundEntry) -> str:
    """Where `outputs` lets the same file go, behind a link too; one that came from another host beside the record."""
    names = outputs.free_names(run.workspace, (words.RECORD_FOLDER, words.OUTSIDE_FOLDER))
    inside = os.path.relpath(str(entry["file"]), os.path.realpath(run.workspace))
    if inside.startswith(os.pardir + os.sep):
        return names[words.OUTSIDE_FOLDER] + "/" + posixpath.normpath(str(entry["path"])).lstrip("/")
    if inside.startswith(words.WORKSPACE_PRIVATE + os.sep):
        return posixpath.join(names[words.RECORD_FOLDER], "resume", os.path.basename(inside))
    return inside
