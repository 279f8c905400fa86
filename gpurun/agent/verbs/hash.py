"""`hash`: hash files of a run, and check whether each is complete: `{run, paths, prefix: {path: bytes}}`.

-> `{hashes: {path: {sha256, size, mtime_ns, inode, whole, cut, why, gone, prefix_sha256}}}`. `why` says why a file is not complete
(`whole` is false). A file with `cut` is truncated: the job ended while it wrote it, and no more bytes will come. `prefix_sha256` is
the hash of the first bytes, as many as `prefix` gives: the laptop has these bytes of a growing file. For a path that is not a regular
file of this run, `sha256` is null and `why` is set; `gone` is true when nothing exists at the path any more.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING, BinaryIO, Dict, Optional, Tuple

from ..file_names import from_wire
from ..lifecycle import records
from ..paths import HostPaths
from ..state import completeness

if TYPE_CHECKING:
    from ..schema.answers import HashAnswer
    from ..schema.files import FileHash
    from ..schema.requests import HashRequest

_BLOCK = 1 << 20
_FETCHED_FROM = (b"workspace", b"out", b"outside", b"attempts")
_RECORDS = (b"job.json", b"events.jsonl", b"exit.json", b"prepare.log", b"environment.json", b"hooks.log")


def answer(request: HashRequest, host: HostPaths) -> HashAnswer:
    run = records.find(host, str(request.get("run")))
    live = not os.path.exists(run.exit)
    top = os.fsencode(run.root)
    prefix = request.get("prefix") or {}
    results = {path: _hash(top, from_wire(path), prefix.get(path), live) for path in request["paths"]}
    hashes = {path: entry for path, (entry, _) in results.items()}
    if live:
        _recheck(top, hashes, {path: identity for path, (_, identity) in results.items() if identity is not None})
    return {"hashes": hashes}


def _hash(
    top: bytes, path: bytes, prefix: Optional[int], live: bool
) -> Tuple[FileHash, Optional[completeness.Identity]]:
    try:
        file = open_inside(top, path)
    except OSError as error:
        return _without_hash(os.strerror(error.errno or 0), gone=error.errno == errno.ENOENT), None
    with file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            return _without_hash("not a regular file"), None
        checked_at = time.time()
        digest, first = _digests(file, prefix)
        after = os.fstat(file.fileno())
        # gpurun writes the record's files, by rename or only by appending.
        why = _why_not(file, before, after, checked_at) if live and path not in _RECORDS else None
        truncated = completeness.begins_as_zip(file) and not completeness.has_zip_end(file, after.st_size)
        if completeness.stamp(before) != completeness.stamp(after):
            why = "it changed while it was read"
    entry: FileHash = {
        "sha256": digest,
        "size": after.st_size,
        "mtime_ns": after.st_mtime_ns,
        "inode": after.st_ino,
        "whole": why is None,
        "cut": why is None and truncated,
        "why": why,
        "gone": False,
        "prefix_sha256": first,
    }
    return entry, completeness.identity(after)


def _without_hash(why: str, *, gone: bool = False) -> FileHash:
    return {
        "sha256": None,
        "size": None,
        "mtime_ns": None,
        "inode": None,
        "whole": False,
        "cut": False,
        "why": why,
        "gone": gone,
        "prefix_sha256": None,
    }


def open_inside(top: bytes, path: bytes) -> BinaryIO:
    """Open a file of the run for reading; no part of its path may be a link. Raises OSError."""
    names = path.split(b"/")
    if not ((names[0] in _FETCHED_FROM and len(names) > 1) or path in _RECORDS) or {b"", b".", b".."} & set(names):
        raise PermissionError(1, "not a file that is fetched")
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: a pipe in the place of a file must not block
        fd = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    return open(fd, "rb", buffering=0)


def _digests(file: BinaryIO, prefix: Optional[int]) -> Tuple[str, Optional[str]]:
    """Return the SHA-256 of the whole file, and of its first `prefix` bytes (None when the file is shorter)."""
    sha = hashlib.sha256()
    first: Optional[str] = sha.hexdigest() if prefix == 0 else None
    done = 0
    while True:
        length = _BLOCK if prefix is None or done >= prefix else min(_BLOCK, prefix - done)
        block = file.read(length)
        if not block:
            return sha.hexdigest(), first
        sha.update(block)
        done += len(block)
        if done == prefix:
            first = sha.hexdigest()


def _why_not(file: BinaryIO, before: os.stat_result, after: os.stat_result, checked_at: float) -> Optional[str]:
    quiet = completeness.QUIET_SECONDS
    if completeness.begins_as_zip(file):
        if not completeness.has_zip_end(file, after.st_size):
            return "its end is not written yet"
        quiet = completeness.QUIET_ZIP_SECONDS
    if completeness.is_young(before, checked_at, quiet):
        return "it was written a moment ago"
    return None


def _recheck(top: bytes, hashes: Dict[str, FileHash], identities: Dict[str, completeness.Identity]) -> None:
    """Detect a file that was half written and quiet when it was read: a process still has it open, or has written to it
    since.

    The order matters: a file that was closed before the first check and did not change was complete. This is done once
    for all files, because it inspects every process.
    """
    writers = completeness.open_for_writing(identities.values())
    for path, entry in hashes.items():
        if not entry["whole"]:
            continue
        if identities[path] in writers:
            _mark_incomplete(entry, "a process has it open for writing")
        elif _has_changed(os.path.join(top, from_wire(path)), entry, identities[path]):
            _mark_incomplete(entry, "it changed after it was read")


def _mark_incomplete(entry: FileHash, why: str) -> None:
    entry["whole"], entry["why"] = False, why


def _has_changed(full: bytes, entry: FileHash, identity: completeness.Identity) -> bool:
    """Return whether the file was written to.

    A removed or replaced file does not count: the bytes that were read were complete.
    """
    try:
        now = os.lstat(full)
    except OSError:
        return False
    return completeness.identity(now) == identity and (
        (now.st_size, now.st_mtime_ns) != (entry["size"], entry["mtime_ns"])
    )
