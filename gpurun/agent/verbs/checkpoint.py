"""`checkpoint`: locate one checkpoint of a run for a fetch: `{run, which: "best"|"last"|SHA-256, ledgers}`.

-> `{run: RunRecord, ledgers, count, checkpoint}`. `checkpoint` is null, or the ledger's entry with `folder` and `name`, where the file
is; `as`, its place in the folder of a fetch; and `mtime_ns`, `ctime_ns`, `inode`. The laptop checks whether the fetched file is what
the ledger describes.
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

PATIENCE = 5.0  # seconds to wait for the ledger's line of a file that is being rewritten
TICK = 0.2


def answer(request: CheckpointRequest, host: HostPaths) -> CheckpointAnswer:
    run = records.find(host, str(request.get("run")))
    reconcile.reconcile_run(host, run)
    live = not os.path.exists(run.exit)
    if checkpoints.in_container(run):
        collect(run, jobs.of_attempt_or_empty(run), live)
    if not live:  # a supervisor that was killed has not done it
        recovered.list_new(run)
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
    """Return the chosen checkpoint whose file exists. When the ledger means another one, wait a moment for its file."""
    until = time.monotonic() + PATIENCE
    while True:
        chosen = _pick(which, ledger.read(run.ledger, run.ledger_cache))
        present = _pick(which, checkpoints.ledger(run))
        if not live or chosen is None or _is_same(present, chosen) or time.monotonic() > until:
            return present
        time.sleep(TICK)


def _is_same(entry: Optional[FoundEntry], other: LedgerEntry) -> bool:
    return entry is not None and all(entry.get(key) == other.get(key) for key in ("path", "sha256"))


def _with_file(run: RunPaths, entry: FoundEntry) -> Optional[CheckpointFile]:
    try:
        status = os.stat(entry["file"])
    except OSError:  # it was removed at this moment
        return None
    folder, name = os.path.split(entry["file"])
    return {
        **checkpoints.brief(entry),
        "folder": folder,
        "name": name,
        "as": _as_fetched(run, entry),
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _as_fetched(run: RunPaths, entry: FoundEntry) -> str:
    """Return the path at which `outputs` places the same file, also for a link; a file from another host is placed
    beside the record.
    """
    names = outputs.free_names(run.workspace, (words.RECORD_FOLDER, words.OUTSIDE_FOLDER))
    inside = os.path.relpath(str(entry["file"]), os.path.realpath(run.workspace))
    if inside.startswith(os.pardir + os.sep):
        return names[words.OUTSIDE_FOLDER] + "/" + posixpath.normpath(str(entry["path"])).lstrip("/")
    if inside.startswith(words.WORKSPACE_PRIVATE + os.sep):
        return posixpath.join(names[words.RECORD_FOLDER], "resume", os.path.basename(inside))
    return inside
