"""`outputs`: list the files of a run for a fetch: `{run, caches: bool, outside: bool}`.

-> `{run, record, ledgers, root, live, now, files, skipped, caches, bytes, container, stamp}`. `root` is the run's directory. A file is
`{path, as, size, mtime_ns, ctime_ns, inode, link, rank, grows, writing}`: `path` is relative to `root`, `as` to the folder of the
fetch, `link` is the relative target of a symbolic link (which has no `path`), `rank` its turn (0 first), `grows` true when its
writer only appends, `writing` why the file is incomplete now, by a quick check. `skipped` is `[{path, why, lost}]`, `lost` when the
fetch is incomplete without it. `stamp` changes with the listed files of the run (see lifecycle/unfetched.py); null while the run,
or one of its hooks, may still write. A run whose hook runs counts as live.

Files outside the workspace take long to find: when `container` is true, a second request with `outside` true lists only
them. The folder of the fetch has the job's files at the paths that the job uses, gpurun's own record under `_gpurun/`,
and the files from outside the workspace under `outside/`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..lifecycle import reconcile, records, unfetched
from ..outputs import listing, outputs
from ..outputs.container_files import collect, may_hold_more, remarks
from ..paths import HostPaths
from ..setup import services
from ..state import jobs, ledger_sync

if TYPE_CHECKING:
    from ..schema.answers import OutputsAnswer
    from ..schema.requests import OutputsRequest


def answer(request: OutputsRequest, host: HostPaths) -> OutputsAnswer:
    run = records.find(host, str(request.get("run")))
    reconcile.reconcile_run(host, run)
    job = jobs.of_attempt_or_empty(run)
    live = not unfetched.is_final(run, job)
    now = time.time()
    container = may_hold_more(run, job)
    if request.get("outside"):
        walked = outputs.Walk()
        walked.skipped = collect(run, job, not os.path.exists(run.exit))
        files = listing.outside_files(run)
        stamp = unfetched.part(files)
    else:
        walked, files = listing.workspace_files(run, with_caches=bool(request.get("caches")))
        stamp = unfetched.part(files)
        later = None if os.path.isdir(run.workspace) else services.went_on_in(run)
        if later is not None:
            walked.skipped.append(
                {"path": ".", "why": "its files continue in %s: fetch that run" % later, "lost": False}
            )
        if not container:
            walked.skipped += remarks(run)
            beside = listing.outside_files(run)
            files += beside
            stamp = unfetched.join(stamp, unfetched.part(beside))
    if live:
        listing.mark_writing(run, files, now)
    files.sort(key=lambda file: (file["rank"], file["size"], file["as"]))
    return {
        "run": run.id,
        "record": records.record_of(run),
        "ledgers": ledger_sync.ledgers(request, host, [run]),
        "root": run.root,
        "live": live,
        "now": now,
        "files": files,
        "skipped": walked.skipped,
        "caches": walked.caches,
        "bytes": sum(file["size"] for file in files),
        "container": container,
        "stamp": None if live or request.get("caches") else stamp,
    }
