"""`rm`: remove ended runs, with their containers."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict

from .. import attempts, endings, journal, records, runtimes, tend
from ..errors import AgentError
from ..paths import HostPaths, RunPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    """Refuses all when one of them is live. One that is gone already is no error: removing is safe to repeat."""
    runs = [host.run(run_id) for run_id in request["runs"] if os.path.isdir(host.run(run_id).root)]
    runs = records.find_all(host, [run.id for run in runs])
    for run in runs:
        tend.tend_run(host, run)
        if journal.fold(run).live:
            raise AgentError("live", "the run %s is still live" % run.id, "gpurun stop " + run.id, exit_code=2)
    freed = sum(endings.disk_use(run) for run in runs)
    for run in runs:
        _remove(host, run)
    return {"removed": [run.id for run in runs], "freed": freed}


def _remove(host: HostPaths, run: RunPaths) -> None:
    job = attempts.job_of(run)
    if job is not None and tend.is_of_this_host(run):
        runtimes.load(job["host"]["runtime"], job["host"]["engine"]).remove(run, job)
    gone = os.path.join(host.runs, ".gone-" + run.id)
    os.rename(run.root, gone)  # in one step, so that no half of a run is ever listed
    shutil.rmtree(gone, ignore_errors=True)
