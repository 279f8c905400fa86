"""Read the checkpoints of a run from the ledger that the plugin writes in out/: all of them, the best, the last.

The job writes the ledger, so it is not trusted: an entry counts only when its file is where a job may write and has the
size in the ledger. For a resume its SHA-256 must match too.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import IO, TYPE_CHECKING, BinaryIO, List, Mapping, Optional, Tuple

from .. import clocks
from .. import vocabulary as words
from ..files import open_regular, read_json, read_untrusted, write_json
from ..ledger import best, brief, last, lines, newest_first, parse, read
from ..paths import RunPaths
from . import completeness, jobs

if TYPE_CHECKING:
    from ..schema.checkpoint import CheckpointSummary, FoundEntry, NotedSummary, Reported
    from ..schema.job import Job

__all__ = [
    "best",
    "brief",
    "digest",
    "has_plugin",
    "in_container",
    "is_complete",
    "is_saving",
    "last",
    "ledger",
    "locate",
    "looks_complete",
    "metrics",
    "newest_first",
    "note_summary",
    "progress",
    "stopped",
    "summary",
]  # fmt: skip

LONGEST_SAVING = 600.0  # seconds; a save that takes longer belongs to a job that died while it saved

_BLOCK = 1 << 20
_FOR_A_RECORD = 1 << 24  # bytes of a ledger: `ps` lists many runs, and must be fast
_TAIL = 1 << 16  # bytes at the end of progress.jsonl in which the last complete line is searched


def ledger(run: RunPaths, *, at_once: Optional[int] = None) -> List[FoundEntry]:
    """Return the checkpoints whose files exist, each with the values of its newest line and `file`, its path on the
    host.

    `at_once`: the most bytes of a ledger to read now; later calls read the rest.
    """
    job = jobs.read_or_empty(run)
    entries: List[FoundEntry] = []
    for entry in read(run.ledger, run.ledger_cache, at_once=at_once):
        file = locate(run, job, entry["path"])
        if file is not None and _size(file) == entry.get("size"):
            entries.append({**entry, "file": file})
    return entries


def in_container(run: RunPaths) -> bool:
    """Return whether some checkpoints were saved where only the job's container has them: they must be gathered first."""
    job = jobs.read_or_empty(run)
    return any(_locate_folder(run, job, entry["path"])[0] == run.outside for entry in lines(run.ledger))


def is_complete(file: str, entry: Mapping[str, object]) -> bool:
    """Return whether the file has exactly the bytes that the ledger describes. Reads the whole file."""
    try:
        with open_regular(file) as content:
            return os.fstat(content.fileno()).st_size == entry["size"] and digest(content) == entry.get("sha256")
    except OSError:
        return False


def looks_complete(file: BinaryIO, size: int) -> bool:
    """Return whether a file that no ledger lists looks complete: the end of a file of `torch.save` shows it."""
    return size > 0 and (not completeness.begins_as_zip(file) or completeness.has_zip_end(file, size))


def digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of an open file."""
    sha = hashlib.sha256()
    for block in iter(lambda: file.read(_BLOCK), b""):
        sha.update(block)
    return sha.hexdigest()


def locate(run: RunPaths, job: Job, path: str) -> Optional[str]:
    """Return where on the host the file is that the job calls `path` (relative to its workspace), or None when it does
    not exist or is outside this job's folders.

    A file that was written only in a container is in `outside/` once the container was gathered.
    """
    base, inside = _locate_folder(run, job, path)
    if inside is None:
        return None
    try:
        top, full = os.path.realpath(base), os.path.realpath(os.path.join(base, inside))
        if not (full + "/").startswith(top.rstrip("/") + "/"):  # by `..`, or by a link that points outside
            return None
        return full if stat.S_ISREG(os.stat(full).st_mode) else None
    except (OSError, ValueError):  # ValueError: not a valid file name
        return None


def summary(run: RunPaths, live: bool = True, *, at_once: Optional[int] = _FOR_A_RECORD) -> Optional[CheckpointSummary]:
    """Return `{count, best, last}`, or None for a run without a ledger. For an ended run, as it was at its end."""
    if not os.path.exists(run.ledger):
        return None
    cached: Optional[NotedSummary] = None if live else read_json(run.summary)
    if cached is not None and cached["of"] == _stamp(run.ledger):
        return cached["summary"]
    entries = ledger(run, at_once=at_once)
    best_one, last_one = best(entries), last(entries)
    return {
        "count": len(entries),
        "best": brief(best_one) if best_one is not None else None,
        "last": brief(last_one) if last_one is not None else None,
    }


def note_summary(run: RunPaths) -> None:
    """Store the summary at the run's end: `ps -a` must not read the ledgers of all earlier runs."""
    values = summary(run, at_once=None)
    if values is not None and not in_container(run):  # their files exist once a fetch has gathered them
        write_json(run.summary, {"of": _stamp(run.ledger), "summary": values})


def _stamp(path: str) -> List[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def progress(run: RunPaths) -> Optional[Reported]:
    """Return the last complete line of the plugin's reports about the job's progress."""
    return next((line for line in map(parse, reversed(_read_report_lines(run))) if line is not None), None)


def metrics(run: RunPaths) -> Reported:
    """Return the last value of each metric. Lines differ: a test does not log the metrics of the fit before it."""
    values: Reported = {}
    for line in map(parse, _read_report_lines(run)):
        logged = line.get("metrics") if line is not None else None
        values.update(logged if isinstance(logged, dict) else {})
    return values


def _read_report_lines(run: RunPaths) -> List[bytes]:
    """Return the last complete lines of progress.jsonl."""
    try:
        return read_untrusted(run.progress, _TAIL).split(b"\n")[:-1]
    except OSError:
        return []


def has_plugin(run: RunPaths, attempt: int) -> bool:
    """Return whether the plugin of this attempt has reported: only then a process checks the stop file."""
    report = progress(run)
    return report is not None and report.get("attempt") == attempt


def is_saving(run: RunPaths) -> bool:
    """Return whether a checkpoint is being written now, as the plugin reports."""
    try:
        started, written = read_untrusted(run.saving, 32), os.lstat(run.saving).st_mtime
    except OSError:
        return False
    try:
        passed = clocks.uptime() - float(started)
    except ValueError:  # an earlier plugin wrote no time
        passed = -1.0
    if passed < 0.0:  # or the job's uptime differs from its host's
        passed = abs(time.time() - written)
    return passed < LONGEST_SAVING


def stopped(run: RunPaths, attempt: int) -> Optional[Reported]:
    """Return what the plugin saved when this attempt was asked to stop: `{checkpoint, epoch, step, lost_batches, why}`."""
    try:
        report = parse(read_untrusted(run.stopped, _TAIL))
    except OSError:
        return None
    return report if report is not None and report.get("attempt") == attempt else None


def _locate_folder(run: RunPaths, job: Job, path: str) -> Tuple[str, Optional[str]]:
    """Return (folder of the host, path in it). The path is None when `path` names a mount itself."""
    if not path.startswith("/"):
        return run.workspace, path
    if job.get("host", {}).get("runtime") == "bare":
        return "/", path[1:]
    for target, source in _mounts(run, job):
        if path.startswith(target.rstrip("/") + "/"):
            return source, path[len(target.rstrip("/")) + 1 :]
        if path == target:
            return source, None
    return run.outside, path[1:]


def _mounts(run: RunPaths, job: Job) -> List[Tuple[str, str]]:
    """Return (path in the job, path on the host) of each mount, the deepest first."""
    own = [
        (words.WORKSPACE_MOUNT, run.workspace),
        (words.OUT_MOUNT, run.out),
        (words.CACHE_MOUNT, run.host.job_cache),
        (words.DATA_MOUNT, run.host.data(job.get("project", {}).get("name", ""))),
    ]
    requested = [(mount["target"], os.path.expanduser(mount["source"])) for mount in job.get("mounts") or []]
    return sorted(own + requested, key=lambda mount: len(mount[0]), reverse=True)


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
