"""What a run wrote, to be fetched: `{run, caches: bool, outside: bool}`.

-> `{run, record, ledgers, root, live, now, files, skipped, caches, bytes, container, stamp}`. `root` is the run's directory. A file is `{path,
as, size, mtime_ns, ctime_ns, inode, link, rank, grows, writing}`: `path` is relative to `root`, `as` to the folder that
it is fetched into, `link` the relative target of a symbolic link (then there is no `path` to read), `rank` its turn (0
first), `grows` true for what its writer only appends to, `writing` why it is not whole now, as far as a glance tells.
`skipped` is `[{path, why, lost}]`, `lost` where the fetch is not whole without it. `stamp` changes with what the run wrote, as
far as this answer lists it (see holdings.py); null while the run, or a hook of it, may write on. A hook that runs counts as live.

What lies outside the workspace takes long to find: `container` says that it is worth a question of its own, with
`outside` true, which answers with those files alone. The folder that all is fetched into has the job's files where the
job has them, gpurun's own record under `_gpurun/`, and what was written outside the workspace under `outside/`.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Any, Dict, List, Tuple

from .. import attempts, holdings, journal, mirrored, outputs, records, secret_files, services, tend, wholeness
from .. import vocabulary as words
from ..outside import collect, may_hold_more, remarks
from ..paths import HostPaths, RunPaths

File = Dict[str, Any]


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, str(request.get("run")))
    tend.tend_run(host, run)
    job = attempts.job_of(run) or {}
    live = not holdings.is_final(run, job)
    now = time.time()
    container = may_hold_more(run, job)
    if request.get("outside"):
        found = outputs.Found()
        found.skipped = collect(run, job, not os.path.exists(run.exit))
        files = outside_files(run)
        stamp = holdings.part(files)
    else:
        found, files = workspace_files(run, with_caches=bool(request.get("caches")))
        stamp = holdings.part(files)
        later = None if os.path.isdir(run.workspace) else services.went_on_in(run)
        if later is not None:
            found.skipped.append({"path": ".", "why": "its files went on in %s: fetch that" % later, "lost": False})
        if not container:
            found.skipped += remarks(run)
            beside = outside_files(run)
            files += beside
            stamp = holdings.join(stamp, holdings.part(beside))
    if live:
        _mark_writing(run, files, now)
    files.sort(key=lambda file: (file["rank"], file["size"], file["as"]))
    return {
        "run": run.id,
        "record": records.record_of(run),
        "ledgers": mirrored.ledgers(request, host, [run]),
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


def workspace_files(run: RunPaths, *, with_caches: bool = False) -> Tuple[outputs.Found, List[File]]:
    """Walk the workspace; return what the walk met, and gpurun's record of the run with the files to fetch."""
    names = outputs.free_names(run.workspace, ("_gpurun", "outside"))
    found = outputs.find_outputs(run.workspace, run.snapshot, with_caches=with_caches)
    return found, [*_record(run, names["_gpurun"]), *_workspace(found)]


def outside_files(run: RunPaths) -> List[File]:
    """Return the files that were copied out of the run's containers."""
    return _outside(run, outputs.free_names(run.workspace, ("_gpurun", "outside"))["outside"])


def _record(run: RunPaths, folder: str) -> List[File]:
    """gpurun's own record of the run, and what lies in `out/` (the log, and what a plugin reported)."""
    files = []
    for path, growing in _record_paths(run):
        full = os.path.join(os.fsencode(run.root), path)
        try:
            entry = os.lstat(full)
        except OSError:
            continue
        if stat.S_ISREG(entry.st_mode):
            inner = path[len(b"out/") :] if path.startswith(b"out/") else path
            destination = os.path.join(folder.encode(), inner)
            files.append(outputs.file_entry(path, destination, entry, outputs.RECORD, growing))
    return files


def _record_paths(run: RunPaths) -> List[Tuple[bytes, bool]]:
    paths = [(os.path.basename(path).encode(), growing) for path, growing in (
        (run.job, False), (run.exit, False), (run.events, True), (run.prepare_log, True),
        (run.environment, False), (run.hooks_log, True),
    )]  # fmt: skip
    try:
        out = sorted(os.listdir(os.path.join(os.fsencode(run.root), b"out")))
    except OSError:
        out = []
    own = {os.path.basename(path) for path, _ in paths}
    paths += [(path, False) for path in _of_earlier_attempts(run)]
    return paths + [(b"out/" + name, True) for name in out if name != words.STOP_FILE.encode() and name not in own]


def _of_earlier_attempts(run: RunPaths) -> List[bytes]:
    numbers = range(1, journal.fold(run).attempt)
    kept = [(place.log, place.exit, place.prepare_log) for place in map(run.of_attempt, numbers)]
    return [os.path.relpath(path, run.root).encode() for paths in kept for path in paths]


def _workspace(found: outputs.Found) -> List[File]:
    files = [
        outputs.file_entry(b"workspace/" + path, path, entry, outputs.rank(path, entry.st_size), outputs.grows(path))
        for path, entry in found.files
    ]
    return files + [_link(path, target) for path, target in found.links]


def _link(path: bytes, target: str) -> File:
    return {
        "path": None,
        "as": outputs.to_wire(path),
        "size": 0,
        "mtime_ns": 0,
        "ctime_ns": 0,
        "inode": 0,
        "link": target,
        "rank": outputs.SMALL,
        "grows": False,
        "writing": None,
    }


def _outside(run: RunPaths, folder: str) -> List[File]:
    secret_files.remove_copies(run)
    found = outputs.find_outputs(run.outside, os.devnull, with_caches=True)
    return [
        outputs.file_entry(
            b"outside/" + path,
            os.path.join(folder.encode(), path),
            entry,
            outputs.OUTSIDE,
            outputs.grows(path),
        )
        for path, entry in found.files
    ]


def _mark_writing(run: RunPaths, files: List[File], now: float) -> None:
    """At a glance: what is transferred in vain. The hash looks closely."""
    top = os.fsencode(run.root)
    watched = {}
    for file in files:
        if file["link"] is not None or file["grows"] or file["rank"] in (outputs.RECORD, outputs.OUTSIDE):
            continue
        try:
            entry = os.lstat(os.path.join(top, outputs.from_wire(file["path"])))
        except OSError:
            continue
        watched[wholeness.identity(entry)] = file
        if wholeness.is_young(entry, now, wholeness.QUIET_ZIP_SECONDS):
            file["writing"] = "it was written a moment ago"
    for identity in wholeness.open_for_writing(watched):
        watched[identity]["writing"] = "a process has it open for writing"
