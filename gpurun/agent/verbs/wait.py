"""`wait`: answer as soon as all these runs have ended, or when the time is over; at once when the state of one is
unknown to its host.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import vocabulary as words
from ..lifecycle import reconcile, records
from ..paths import HostPaths
from ..state import journal, ledger_sync

if TYPE_CHECKING:
    from ..schema.answers import WaitAnswer
    from ..schema.requests import WaitRequest

TICK = 0.1
RECONCILE_EVERY = 5.0


def answer(request: WaitRequest, host: HostPaths) -> WaitAnswer:
    runs = records.find_all(host, request["runs"])
    until = time.monotonic() + float(request["seconds"])
    failures = {run.id: reconcile.reconcile_run(host, run) for run in runs}
    reconciled = time.monotonic()
    if any(records.record_of(run)["state"] == words.UNKNOWN for run in runs):
        until = reconciled  # this host cannot see whether it ends
    while True:
        if time.monotonic() > reconciled + RECONCILE_EVERY:
            reconciled = time.monotonic()
            failures = {run.id: reconcile.reconcile_run(host, run) for run in runs}
        if time.monotonic() >= until or not any(journal.fold(run).live for run in runs):
            return {
                "runs": [records.record_of(run, failures.get(run.id)) for run in runs],
                "ledgers": ledger_sync.ledgers(request, host, runs),
            }
        time.sleep(TICK)
