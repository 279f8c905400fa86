"""`unfetched`: list what of these runs may exist nowhere else: `{runs}` -> `{runs: [RunRecord], held: {id: Holdings and
`shells`}, ledgers}`.

The laptop asks this before it removes anything. Walks the workspaces. A run that this host does not have is left out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List

from ..errors import AgentError
from ..lifecycle import reconcile, records, shells, unfetched
from ..paths import HostPaths, RunPaths
from ..state import jobs, ledger_sync

if TYPE_CHECKING:
    from ..schema.answers import UnfetchedAnswer
    from ..schema.requests import UnfetchedRequest


def answer(request: UnfetchedRequest, host: HostPaths) -> UnfetchedAnswer:
    present_ids = [run_id for run_id in request["runs"] if os.path.isdir(host.run(str(run_id)).root)]
    runs = records.find_all(host, present_ids)
    for run in runs:
        reconcile.reconcile_run(host, run)
    return {
        "runs": [records.record_of(run) for run in runs],
        "held": {
            run.id: {**unfetched.measure(run, jobs.of_attempt_or_empty(run)).as_json(), "shells": _shells(run)}
            for run in runs
        },
        "ledgers": ledger_sync.ledgers(request, host, runs),
    }


def _shells(run: RunPaths) -> List[str]:
    """Return the shells in the run. When the engine does not answer, return none: `rm` asks it again."""
    try:
        return shells.open_in(run)
    except AgentError:
        return []
