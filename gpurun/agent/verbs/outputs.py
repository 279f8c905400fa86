"""What a run wrote, to be fetched: `{run, caches: bool, outside: bool}`.

-> `{run, record, ledgers, root, live, now, files, skipped, caches, bytes, container, stamp}`. `root` is the run's directory. A file is `{path,
as, size, mtime_ns, ctime_ns, inode, link, rank, grows, writing}`: `path` is relative to `root`, `as` to the folder that
it is fetched into, `link` the relative target of a symbolic link (then there is no `path` to read), `rank` its turn (0
first), `grows` true for what its writer only appends to, `writing` why it is not whole now, as far as a glance tells.
`skipped` is `[{path, why, lost}]`, `lost` where the fetch is not whole without it. `stamp` changes with what the run wrote, as
far as this answer lists it (see lifecycle/unfetched.py); null while the run, or a hook of it, may write on. A hook that runs counts as live.

What lies outside the workspace takes long to find: `container` says that it is worth a question of its own, with
`outside` true, which answers with those files alone. The folder that all is fetched into has the job's files where the
job has them, gpurun's own record under `_gpurun/`, and what was written outside the workspace under `outside/`.
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
        found = outputs.Found()
        found.skipped = collect(run, job, not os.path.exists(run.exit))
        files = listing.outside_files(run)
        stamp = unfetched.part(files)
    else:
        found, files = listing.workspace_files(run, with_caches=bool(request.get("caches")))
        stamp = unfetched.part(files)
        later = None if os.path.isdir(run.workspace) else services.went_on_in(run)
        if later is not None:
            found.skipped.append({"path": ".", "why": "its files went on in %s: fetch that" % later, "lost": False})
        if not container:
            found.skipped += remarks(run)
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
        "skipped": found.skipped,
        "caches": found.caches,
        "bytes": sum(file["size"] for file in files),
        "container": container,
        "stamp": None if live or request.get("caches") else stamp,
    }
