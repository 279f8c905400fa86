"""What the files of a run contain, and whether each is whole: `{run, paths, prefix: {path: bytes}}`.

-> `{hashes: {path: {sha256, size, mtime_ns, inode, whole, cut, why, prefix_sha256}}}`. `why` says what speaks against a file that
is not whole; one that is `cut` is all that there will be, and the job ended while it wrote it. `prefix_sha256` is of the first so
many bytes, where `prefix` asks: the laptop has that much of a growing file. A path that is gone, or no regular file of this run,
has `sha256` null and a `why`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Any, BinaryIO, Dict, List, Optional, Tuple

from ..file_names import from_wire
from ..lifecycle import records
from ..paths import HostPaths
from ..state import completeness

_BLOCK = 1 << 20
_FETCHED_FROM = (b"workspace", b"out", b"outside", b"attempts")
_RECORDS = (b"job.json", b"events.jsonl", b"exit.json", b"prepare.log", b"environment.json", b"hooks.log")


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, str(request.get("run")))
    live = not os.path.exists(run.exit)
    top = os.fsencode(run.root)
    prefix = request.get("prefix") or {}
    paths: List[str] = request["paths"]
    hashes = {path: _hash(top, from_wire(path), prefix.get(path), live) for path in paths}
    if live:
        _look_again(top, hashes)
    for entry in hashes.values():
        entry.pop("identity", None)
    return {"hashes": hashes}


def _hash(top: bytes, path: bytes, prefix: Optional[int], live: bool) -> Dict[str, Any]:
    try:
        file = open_inside(top, path)
    except OSError as error:
        return _not_whole(os.strerror(error.errno or 0))
    with file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            return _not_whole("no regular file")
        asked = time.time()
        digest, first = _digests(file, prefix)
        after = os.fstat(file.fileno())
        # The record's files are ours: written by rename, or only appended to.
        why = _why_not(file, before, after, asked) if live and path not in _RECORDS else None
        cut = completeness.begins_as_zip(file) and not completeness.has_zip_end(file, after.st_size)
        if completeness.stamp(before) != completeness.stamp(after):
            why = "it changed while it was read"
    return {
        "sha256": digest,
        "size": after.st_size,
        "mtime_ns": after.st_mtime_ns,
        "inode": after.st_ino,
        "whole": why is None,
        "cut": why is None and cut,
        "why": why,
        "prefix_sha256": first,
        "identity": completeness.identity(after),
    }


def _not_whole(why: str) -> Dict[str, Any]:
    return {
        "sha256": None,
        "size": None,
        "mtime_ns": None,
        "inode": None,
        "whole": False,
        "cut": False,
        "why": why,
        "prefix_sha256": None,
    }


def open_inside(top: bytes, path: bytes) -> BinaryIO:
    """Open a file of the run for reading, no part of its path being a link; raises OSError."""
    names = path.split(b"/")
    if not ((names[0] in _FETCHED_FROM and len(names) > 1) or path in _RECORDS) or {b"", b".", b".."} & set(names):
        raise PermissionError(1, "not a file that is fetched")
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: a pipe in the place of a file must not hold us
        fd = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    return open(fd, "rb", buffering=0)


def _digests(file: BinaryIO, prefix: Optional[int]) -> Tuple[str, Optional[str]]:
    """SHA-256 of all that is read, and of the first `prefix` bytes (None when there are not so many)."""
    running = hashlib.sha256()
    first: Optional[str] = running.hexdigest() if prefix == 0 else None
    done = 0
    while True:
        want = _BLOCK if prefix is None or done >= prefix else min(_BLOCK, prefix - done)
        block = file.read(want)
        if not block:
            return running.hexdigest(), first
        running.update(block)
        done += len(block)
        if done == prefix:
            first = running.hexdigest()


def _why_not(file: BinaryIO, before: os.stat_result, after: os.stat_result, asked: float) -> Optional[str]:
    quiet = completeness.QUIET_SECONDS
    if completeness.begins_as_zip(file):
        if not completeness.has_zip_end(file, after.st_size):
            return "its end is not written yet"
        quiet = completeness.QUIET_ZIP_SECONDS
    if completeness.is_young(before, asked, quiet):
        return "it was written a moment ago"
    return None


def _look_again(top: bytes, hashes: Dict[str, Dict[str, Any]]) -> None:
    """Unmask a file that was half written, and quiet, when it was read: its writer still has it open, or
    wrote on.

    In this order: what was closed before the first look without a further change was complete. Once for all
    files: it looks at every process.
    """
    writers = completeness.open_for_writing(entry["identity"] for entry in hashes.values() if "identity" in entry)
    for path, entry in hashes.items():
        if not entry["whole"]:
            continue
        if entry["identity"] in writers:
            entry.update(whole=False, why="a process has it open for writing")
        elif _wrote_on(os.path.join(top, from_wire(path)), entry):
            entry.update(whole=False, why="it changed after it was read")


def _wrote_on(full: bytes, entry: Dict[str, Any]) -> bool:
    """A file that was removed or replaced by another does not count: what was read of it was whole."""
    try:
        now = os.lstat(full)
    except OSError:
        return False
    return completeness.identity(now) == entry["identity"] and (
        (now.st_size, now.st_mtime_ns) != (entry["size"], entry["mtime_ns"])
    )
