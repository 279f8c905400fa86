"""`carry`: what of a run that has ended goes to another host, for its next attempt there: `{run, from}`.

-> `{run: RunRecord, job, root, snapshot: [[path, kind, size, mtime_ns, target]], checkpoint}`. `job` has its image by digest where
a registry has it. `snapshot` lists the code as it was sent; `checkpoint` is null, or the ledger's entry with `folder` and `name`,
where it lies. With `to`, the name of the host that has taken the run over, nothing but that is noted, and the answer is `{}`.
"""

from __future__ import annotations

import os
from typing import Any, Dict

from .. import attempts, checkpoints, image, journal, manifest, records, tend
from ..files import read_json
from ..outputs import to_wire
from ..paths import HostPaths
from . import resume


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, request["run"])
    records.refuse_newer(run)
    if request.get("to"):
        journal.record(run, "note", message="goes on as attempt %(attempt)d on %(to)s" % request)
        journal.record(run, "moved", to=request["to"])
        return {}
    tend.tend_run(host, run)
    job = attempts.job_of(run) or {}
    resume.refuse(run, job)
    if checkpoints.in_container(run):
        attempts.gather_earlier(run, job)
    checkpoint = attempts.choose(run, request.get("from"))
    if checkpoint is not None:
        folder, name = os.path.split(attempts.file_of(run, checkpoint))
        checkpoint.update(folder=folder, name=name)
    sent = read_json(run.job) or {}
    if sent.get("image"):
        sent["image"] = image.pinned(sent["image"], read_json(run.prepared) or {})
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
