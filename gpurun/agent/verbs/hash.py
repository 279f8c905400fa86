"""What the files of a run contain, and whether each is whole: `{run, paths, prefix: {path: bytes}}`.

-> `{hashes: {path: {sha256, size, mtime_ns, inode, whole, cut, why, gone, prefix_sha256}}}`. `why` says what speaks against a file
that is not whole; one that is `cut` is all that there will be, and the job ended while it wrote it. `prefix_sha256` is of the first
so many bytes, where `prefix` asks: the laptop has that much of a growing file. A path that is no regular file of this run has
`sha256` null and a `why`; `gone` is true where nothing is at the path any more.
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
    found = {path: _hash(top, from_wire(path), prefix.get(path), live) for path in request["paths"]}
    hashes = {path: entry for path, (entry, _) in found.items()}
    if live:
        _look_again(top, hashes, {path: identity for path, (_, identity) in found.items() if identity is not None})
    return {"hashes": hashes}


def _hash(
    top: bytes, path: bytes, prefix: Optional[int], live: bool
) -> Tuple[FileHash, Optional[completeness.Identity]]:
    try:
        file = open_inside(top, path)
    except OSError as error:
        return _not_whole(os.strerror(error.errno or 0), gone=error.errno == errno.ENOENT), None
    with file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            return _not_whole("no regular file"), None
        asked = time.time()
        digest, first = _digests(file, prefix)
        after = os.fstat(file.fileno())
        # The record's files are ours: written by rename, or only appended to.
        why = _why_not(file, before, after, asked) if live and path not in _RECORDS else None
        cut = completeness.begins_as_zip(file) and not completeness.has_zip_end(file, after.st_size)
        if completeness.stamp(before) != completeness.stamp(after):
            why = "it changed while it was read"
    entry: FileHash = {
        "sha256": digest,
        "size": after.st_size,
        "mtime_ns": after.st_mtime_ns,
        "inode": after.st_ino,
        "whole": why is None,
        "cut": why is None and cut,
        "why": why,
        "gone": False,
        "prefix_sha256": first,
    }
    return entry, completeness.identity(after)


def _not_whole(why: str, *, gone: bool = False) -> FileHash:
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


def _look_again(top: bytes, hashes: Dict[str, FileHash], identities: Dict[str, completeness.Identity]) -> None:
    """Unmask a file that was half written, and quiet, when it was read: its writer still has it open, or
    wrote on.

    In this order: what was closed before the first look without a further change was complete. Once for all
    files: it looks at every process.
    """
    writers = completeness.open_for_writing(identities.values())
    for path, entry in hashes.items():
        if not entry["whole"]:
            continue
        if identities[path] in writers:
            _doubt(entry, "a process has it open for writing")
        elif _wrote_on(os.path.join(top, from_wire(path)), entry, identities[path]):
            _doubt(entry, "it changed after it was read")


def _doubt(entry: FileHash, why: str) -> None:
    entry["whole"], entry["why"] = False, why


def _wrote_on(full: bytes, entry: FileHash, identity: completeness.Identity) -> bool:
    """A file that was removed or replaced by another does not count: what was read of it was whole."""
    try:
        now = os.lstat(full)
    except OSError:
        return False
    return completeness.identity(now) == identity and (
        (now.st_size, now.st_mtime_ns) != (entry["size"], entry["mtime_ns"])
    )
