"""`fetched`: record that a laptop has the files of an attempt: `{run, what: "all"|"some", attempt, stamp}` ->
`{counts}`.

`stamp` belongs to the listing that was fetched. It is written beside the run, so that other laptops can report "fetched
elsewhere". Only "all" of a run that had ended, and has not continued since, counts as fetched (`t`). A container that
has no more files, and could not be removed at the run's end, is removed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..files import read_json, write_json
from ..host import locks
from ..lifecycle import records
from ..outputs.container_files import forget, may_hold_more
from ..paths import HostPaths
from ..state import jobs, journal

if TYPE_CHECKING:
    from ..schema.answers import FetchedAnswer
    from ..schema.requests import FetchedRequest


def answer(request: FetchedRequest, host: HostPaths) -> FetchedAnswer:
    run = records.find(host, str(request.get("run")))
    records.refuse_newer(run)
    ended = os.path.exists(run.exit)
    if journal.fold(run).attempt != request["attempt"]:
        return {"counts": False}
    is_complete = ended and request["what"] == "all"
    last_fetch = read_json(run.fetched) or {}
    if is_complete or not last_fetch.get("t"):  # a partial fetch must not replace a complete one
        now = time.time()
        stamp = request.get("stamp") if is_complete else None
        with suppress(OSError):  # a full disk here does not change what is on the laptop
            write_json(
                run.fetched, {"t": now if is_complete else None, "at": now, "what": request["what"], "stamp": stamp}
            )
    job = jobs.of_attempt_or_empty(run)
    held = locks.acquire(locks.run_lock(run.id)) if is_complete else None
    if held is not None:  # else its next attempt begins, whose container has the same name
        try:
            if os.path.exists(run.exit) and not may_hold_more(run, job):
                forget(run, job)
        finally:
            held.release()
    return {"counts": is_complete}
