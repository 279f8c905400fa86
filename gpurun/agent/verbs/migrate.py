"""`migrate`: return what the next attempt of an ended run needs on another host: `{run, from, ask, target}`.

-> `{run: RunRecord, job, root, snapshot: [[path, kind, size, mtime_ns, target]], checkpoint}`. `job` names its image by digest when a
registry has the image. `snapshot` lists the code as it was sent; `checkpoint` is null, or the ledger's entry with `folder` and
`name`, where the file is. From here on, the run belongs to the host that the laptop calls `target` (see agent/state/moving.py).

`{run, to, attempt}` reports that host `to` has begun the next attempt, `{run, back: ask}` that the host never began it
and never will; the answer is `{}`. `{run, settle: ask}` is sent to the new host: -> `{begun, run: RunRecord or null}`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .. import error_codes, manifest
from .. import vocabulary as words
from ..errors import AgentError
from ..file_names import to_wire
from ..files import read_json
from ..images import image
from ..lifecycle import attempts, reconcile, records
from ..paths import HostPaths, RunPaths
from ..state import checkpoints, jobs, journal, moving
from . import resume

if TYPE_CHECKING:
    from ..schema.answers import MigrateAnswer, MigratedCheckpoint
    from ..schema.checkpoint import PlacedCheckpoint
    from ..schema.job import Job
    from ..schema.requests import MigrateRequest


def answer(request: MigrateRequest, host: HostPaths) -> MigrateAnswer:
    """Raise AgentError: `no_run`, `live`, `moving`, `moved`, `busy`, `no_checkpoint`, and what `resume.refuse` raises."""
    if request.get("settle"):
        return _settle(host, request["run"], request["settle"])
    run = records.find(host, request["run"])
    records.refuse_newer(run)
    if request.get("to"):
        moving.note_moved(run, request["to"], request["attempt"])
        return {}
    if request.get("back"):
        moving.take_back(run, request["back"])
        return {}
    records.refuse_damaged(run)
    reconcile.reconcile_run(host, run)
    job = jobs.of_attempt_or_empty(run)
    attempt = journal.fold(run).attempt
    _refuse(run, job, request["ask"])
    if checkpoints.in_container(run):
        attempts.gather_earlier(run, job)
    checkpoint = attempts.choose(run, request.get("from"))
    sent = jobs.read_or_empty(run)
    name = sent.get("image")
    if name:
        sent = {**sent, "image": image.pinned(name, read_json(run.prepared))}
    held = resume.take_lock(run)
    try:
        _refuse(run, job, request["ask"])
        if journal.fold(run).attempt != attempt:
            raise AgentError(
                error_codes.LIVE,
                "the run %s has continued here in the meantime" % run.id,
                "try again",
                exit_code=words.EXIT_USAGE,
            )
        moving.give_up(run, request["ask"], request["target"])
    finally:
        held.release()
    return {
        "run": records.record_of(run),
        "job": sent,
        "root": run.root,
        "snapshot": [
            (to_wire(entry.path), entry.kind, entry.size, entry.mtime_ns, to_wire(entry.target))
            for entry in manifest.walk(run.snapshot)
        ],
        "checkpoint": _with_place(run, checkpoint) if checkpoint is not None else None,
    }


def _with_place(run: RunPaths, checkpoint: PlacedCheckpoint) -> MigratedCheckpoint:
    folder, name = os.path.split(jobs.file_of(run, checkpoint))
    return {**checkpoint, "folder": folder, "name": name}


def _refuse(run: RunPaths, job: Job, ask: str) -> None:
    """Check as for a resume here. The same request sent twice is one move."""
    move = journal.fold(run).moving
    resume.refuse(run, job, carried=move is not None and move["ask"] == ask)


def _settle(host: HostPaths, run_id: str, ask: str) -> MigrateAnswer:
    if not re.fullmatch(words.RUN_ID, run_id) or not re.fullmatch("[0-9a-f]{1,64}", ask):
        raise AgentError(error_codes.NO_RUN, "%r is not a valid id of a run" % run_id)
    run = host.run(run_id)
    if os.path.exists(run.job):
        reconcile.reconcile_run(host, run)
    begun = moving.settle(run, ask)
    return {"begun": begun, "run": records.record_of(run) if os.path.exists(run.job) else None}
