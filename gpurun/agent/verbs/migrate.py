"""`migrate`: send what the next attempt of an ended run needs on another host: `{run, from, ask, target}`.

-> `{run: RunRecord, job, root, snapshot: [[path, kind, size, mtime_ns, target]], checkpoint}`. `job` has its image by digest where
a registry has it. `snapshot` lists the code as it was sent; `checkpoint` is null, or the ledger's entry with `folder` and `name`,
where it lies. From here on the run is left to the host that the laptop calls `target` (see agent/state/moving.py).

`{run, to, attempt}` tells that host `to` has begun the next attempt, `{run, back: ask}` that the host never began it and never will;
the answer is `{}`. `{run, settle: ask}` is for the host to which it goes: -> `{begun, run: RunRecord or null}`.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict

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


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    """Raises AgentError: `no_run`, `live`, `moving`, `moved`, `busy`, `no_checkpoint`, and what `resume.refuse` does."""
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
    job = jobs.job_of(run) or {}
    attempt = journal.fold(run).attempt
    _refuse(run, job, request["ask"])
    if checkpoints.in_container(run):
        attempts.gather_earlier(run, job)
    checkpoint = attempts.choose(run, request.get("from"))
    if checkpoint is not None:
        folder, name = os.path.split(jobs.file_of(run, checkpoint))
        checkpoint.update(folder=folder, name=name)
    sent = read_json(run.job) or {}
    if sent.get("image"):
        sent["image"] = image.pinned(sent["image"], read_json(run.prepared) or {})
    held = resume.take_lock(run)
    try:
        _refuse(run, job, request["ask"])
        if journal.fold(run).attempt != attempt:
            raise AgentError(
                error_codes.LIVE, "the run %s went on here meanwhile" % run.id, "try again", exit_code=words.EXIT_USAGE
            )
        moving.give_up(run, request["ask"], request["target"])
    finally:
        held.release()
    return {
        "run": records.record_of(run),
        "job": sent,
        "root": run.root,
        "snapshot": [
            [to_wire(entry.path), entry.kind, entry.size, entry.mtime_ns, to_wire(entry.target)]
            for entry in manifest.walk(run.snapshot)
        ],
        "checkpoint": checkpoint,
    }


def _refuse(run: RunPaths, job: Dict[str, Any], ask: str) -> None:
    """As for a resume here; the same question sent twice is one move."""
    under_way = journal.fold(run).moving
    resume.refuse(run, job, carried=under_way is not None and under_way["ask"] == ask)


def _settle(host: HostPaths, run_id: str, ask: str) -> Dict[str, Any]:
    if not re.fullmatch(words.RUN_ID, run_id) or not re.fullmatch("[0-9a-f]{1,64}", ask):
        raise AgentError(error_codes.NO_RUN, "no run can have the id %r" % run_id)
    run = host.run(run_id)
    if os.path.exists(run.job):
        reconcile.reconcile_run(host, run)
    begun = moving.settle(run, ask)
    return {"begun": begun, "run": records.record_of(run) if os.path.exists(run.job) else None}
