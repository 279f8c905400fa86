"""`status`: everything about one run."""

from __future__ import annotations

from typing import Any, Dict

from ..files import read_json
from ..lifecycle import logs, reconcile, records
from ..paths import HostPaths
from ..state import journal, ledger_sync

TAIL = 1 << 13  # bytes


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, request["run"])
    record = records.record_of(run, reconcile.reconcile_run(host, run))
    return {
        "run": record,
        "job": read_json(run.job),
        "events": journal.read(run),
        "prepare_tail": logs.tail_text(run.prepare_log, TAIL),
        "log_tail": logs.tail_text(run.log, TAIL),
        "traceback": logs.last_traceback(run) or None,
        "path": run.workspace,
        "environment": read_json(run.environment),
        "prepared": journal.fold(run).prepared,
        "ledgers": ledger_sync.ledgers(request, host, [run]),
    }
