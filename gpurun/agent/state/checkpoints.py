"""The checkpoints of a run, by the ledger that the plugin keeps in out/: which there are, the best, the last.

The ledger is written by the job and is trusted in nothing: an entry counts when its file lies where a job may write and
has the size that the ledger tells; for a resume its SHA-256 must fit too.
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

LONGEST_SAVING = 600.0  # seconds; what takes longer is a job that died while it saved

_BLOCK = 1 << 20
_FOR_A_RECORD = 1 << 24  # bytes of a ledger: `ps` tells of many runs, and must answer
_TAIL = 1 << 16  # bytes at the end of progress.jsonl in which its last whole line is looked for


def ledger(run: RunPaths, *, at_once: Optional[int] = None) -> List[FoundEntry]:
    """The checkpoints that are there, each as its newest line tells, with `file`, its path on the host.

    `at_once`: bytes of a ledger that is read for the first time; what is behind them is told another time.
    """
    job = jobs.read_or_empty(run)
    found: List[FoundEntry] = []
    for entry in read(run.ledger, run.ledger_cache, at_once=at_once):
        file = locate(run, job, entry["path"])
        if file is not None and _size(file) == entry.get("size"):
            found.append({**entry, "file": file})
    return found


def in_container(run: RunPaths) -> bool:
    """Whether some were saved where only the job's container had them: they are to be gathered before they are there."""
    job = jobs.read_or_empty(run)
    return any(_place(run, job, entry["path"])[0] == run.outside for entry in lines(run.ledger))


def is_complete(file: str, entry: Mapping[str, object]) -> bool:
    """Return whether `file` is what the ledger's entry says, byte for byte. Reads all of it."""
    try:
        with open_regular(file) as content:
            return os.fstat(content.fileno()).st_size == entry["size"] and digest(content) == entry.get("sha256")
    except OSError:
        return False


def looks_complete(file: BinaryIO, size: int) -> bool:
    """Of a file that no ledger tells of: what `torch.save` writes says by itself that it is finished."""
    return size > 0 and (not completeness.begins_as_zip(file) or completeness.has_zip_end(file, size))


def digest(file: IO[bytes]) -> str:
    """The SHA-256 of what is left to read of an open file."""
    running = hashlib.sha256()
    for block in iter(lambda: file.read(_BLOCK), b""):
        running.update(block)
    return running.hexdigest()


def locate(run: RunPaths, job: Job, path: str) -> Optional[str]:
    """Where on the host the file is that the job calls `path` (relative to its workspace); None when it is nowhere, or
    not where this job's files are.

    What was written in a container alone is in `outside/` once that was gathered.
    """
    base, inside = _place(run, job, path)
    if inside is None:
        return None
    try:
        top, full = os.path.realpath(base), os.path.realpath(os.path.join(base, inside))
        if not (full + "/").startswith(top.rstrip("/") + "/"):  # by `..`, or by a link that leads out
            return None
        return full if stat.S_ISREG(os.stat(full).st_mode) else None
    except (OSError, ValueError):  # ValueError: what no file system takes for a name
        return None


def summary(run: RunPaths, live: bool = True, *, at_once: Optional[int] = _FOR_A_RECORD) -> Optional[CheckpointSummary]:
    """`{count, best, last}`; None for a run that has no ledger. Of one that has ended, as it was at its end."""
    if not os.path.exists(run.ledger):
        return None
    noted: Optional[NotedSummary] = None if live else read_json(run.summary)
    if noted is not None and noted["of"] == _stamp(run.ledger):
        return noted["summary"]
    entries = ledger(run, at_once=at_once)
    best_one, last_one = best(entries), last(entries)
    return {
        "count": len(entries),
        "best": brief(best_one) if best_one is not None else None,
        "last": brief(last_one) if last_one is not None else None,
    }


def note_summary(run: RunPaths) -> None:
    """At the run's end: `ps -a` must not read the ledgers of all runs that ever were."""
    found = summary(run, at_once=None)
    if found is not None and not in_container(run):  # those are there once a fetch has gathered them
        write_json(run.summary, {"of": _stamp(run.ledger), "summary": found})


def _stamp(path: str) -> List[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def progress(run: RunPaths) -> Optional[Reported]:
    """The last whole line of what the plugin reports of the job's progress."""
    return next((line for line in map(parse, reversed(_reported(run))) if line is not None), None)


def metrics(run: RunPaths) -> Reported:
    """The last value of each metric: a test knows nothing of what the fit before it logged."""
    found: Reported = {}
    for line in map(parse, _reported(run)):
        told = line.get("metrics") if line is not None else None
        found.update(told if isinstance(told, dict) else {})
    return found


def _reported(run: RunPaths) -> List[bytes]:
    """The last whole lines of progress.jsonl."""
    try:
        return read_untrusted(run.progress, _TAIL).split(b"\n")[:-1]
    except OSError:
        return []


def has_plugin(run: RunPaths, attempt: int) -> bool:
    """Whether the plugin of this attempt has reported: only then somebody looks for the stop file."""
    told = progress(run)
    return told is not None and told.get("attempt") == attempt


def is_saving(run: RunPaths) -> bool:
    """Whether a checkpoint is being written now, as the plugin tells."""
    try:
        told, written = read_untrusted(run.saving, 32), os.lstat(run.saving).st_mtime
    except OSError:
        return False
    try:
        passed = clocks.uptime() - float(told)
    except ValueError:  # an earlier plugin told no time
        passed = -1.0
    if passed < 0.0:  # or the job counts from another moment than its host
        passed = abs(time.time() - written)
    return passed < LONGEST_SAVING


def stopped(run: RunPaths, attempt: int) -> Optional[Reported]:
    """What the plugin saved when this attempt was asked to stop: `{checkpoint, epoch, step, lost_batches, why}`."""
    try:
        told = parse(read_untrusted(run.stopped, _TAIL))
    except OSError:
        return None
    return told if told is not None and told.get("attempt") == attempt else None


def _place(run: RunPaths, job: Job, path: str) -> Tuple[str, Optional[str]]:
    """(folder of the host, path in it). None where the path names a mount itself."""
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
    """(where the job sees it, where it is on the host), the deepest first."""
    own = [
        (words.WORKSPACE_MOUNT, run.workspace),
        (words.OUT_MOUNT, run.out),
        (words.CACHE_MOUNT, run.host.job_cache),
        (words.DATA_MOUNT, run.host.data(job.get("project", {}).get("name", ""))),
    ]
    asked = [(mount["target"], os.path.expanduser(mount["source"])) for mount in job.get("mounts") or []]
    return sorted(own + asked, key=lambda mount: len(mount[0]), reverse=True)


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
