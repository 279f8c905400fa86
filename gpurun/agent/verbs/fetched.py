"""The laptop has what the run wrote as its Nth attempt: `{run, what: "all"|"some", attempt}` -> `{counts}`.

Written beside the run, for `rm` and `prune`. Only "all" of a run that had ended, and that has not gone on since, counts as
fetched (`t`); its container, kept until now for what it wrote outside the workspace, goes.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict

from .. import attempts, journal, locks, records
from ..files import read_json, write_json
from ..outside import forget
from ..paths import HostPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, str(request.get("run")))
    ended = os.path.exists(run.exit)
    if journal.fold(run).attempt != request["attempt"]:
        return {"counts": False}
    whole = ended and request["what"] == "all"
    if (read_json(run.fetched) or {}).get("t"):  # some of it fetched again takes nothing away
        return {"counts": whole}
    now = time.time()
    write_json(run.fetched, {"t": now if whole else None, "at": now, "what": request["what"]})
    held = locks.acquire(locks.run_lock(run.id)) if whole else None
    if held is not None:  # else its next attempt begins, whose container has the same name
        try:
            if os.path.exists(run.exit):
                forget(run, attempts.job_of(run) or {})
        finally:
            held.release()
    return {"counts": whole}
