"""`status`: return everything about one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..files import read_json
from ..lifecycle import logs, reconcile, records
from ..paths import HostPaths
from ..state import jobs, journal, ledger_sync

if TYPE_CHECKING:
    from ..schema.answers import StatusAnswer
    from ..schema.requests import StatusRequest

TAIL = 1 << 13  # bytes


def answer(request: StatusRequest, host: HostPaths) -> StatusAnswer:
    run = records.find(host, request["run"])
    record = records.record_of(run, reconcile.reconcile_run(host, run))
    return {
        "run": record,
        "job": jobs.read(run),
        "events": journal.read(run),
        "prepare_tail": logs.tail_text(run.prepare_log, TAIL),
        "log_tail": logs.tail_text(run.log, TAIL),
        "traceback": logs.last_traceback(run) or None,
        "path": run.workspace,
        "environment": read_json(run.environment),
        "prepared": journal.fold(run).prepared,
        "ledgers": ledger_sync.ledgers(request, host, [run]),
    }
