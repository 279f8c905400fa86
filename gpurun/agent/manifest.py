"""Compute one digest of a project's files: on the laptop from its list and on the host from what arrived.

It covers the files and links of a tree, sorted by the bytes of their paths: path, kind, size, time of change, target of
a link. Modes, owners and folders are not part of it. The time of a link is not part of it: some file systems do not
store it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Iterable, Iterator, List, NamedTuple, Optional

if TYPE_CHECKING:
    from .schema.run import Manifest

SECOND = 1_000_000_000


class Entry(NamedTuple):
    """Describe one file ("f") or symbolic link ("l") of a tree. Size in bytes, time in nanoseconds since 1970."""

    path: bytes
    kind: str
    size: int
    mtime_ns: int
    target: bytes = b""


def digest(entries: Iterable[Entry], granularity_ns: int = 1) -> str:
    """Return the SHA-256 (hex) of `entries`, which are sorted by path; times are rounded down to `granularity_ns`."""
    sha = hashlib.sha256()
    for path, kind, size, mtime_ns, target in entries:
        when = mtime_ns // granularity_ns if kind == "f" else 0
        sha.update(b"%b\0%b\0%d\0%d\0%b\0" % (path, kind.encode(), size, when, target))
    return sha.hexdigest()


def make(entries: List[Entry]) -> Manifest:
    """Return what the laptop sends with `start`: `digest`, `coarse` (times in whole seconds), `count`, `bytes`."""
    return {
        "digest": digest(entries),
        "coarse": digest(entries, SECOND),
        "count": len(entries),
        "bytes": sum(entry.size for entry in entries),
    }


def difference(folder: str, wanted: Manifest) -> Optional[str]:
    """Return None when `folder` holds exactly what `wanted` (from `make`) lists, else the difference in words."""
    entries = walk(folder)
    if digest(entries) == wanted["digest"]:
        return None
    # A disk that stores only whole seconds (some network file systems) never yields the fine digest.
    if all(entry.mtime_ns % SECOND == 0 for entry in entries) and digest(entries, SECOND) == wanted.get("coarse"):
        return None
    arrived = "{} files with {} bytes".format(len(entries), sum(entry.size for entry in entries))
    listed = "{} files with {} bytes".format(wanted["count"], wanted["bytes"])
    if arrived == listed:
        return "as many files and bytes as were sent, but their names, times or links differ"
    return "{} arrived, {} were listed".format(arrived, listed)


def walk(folder: str) -> List[Entry]:
    """Return the files and links below `folder`, sorted by path. Sockets, pipes and devices are ignored."""
    return sorted(_walk(os.fsencode(folder), b""))


def _walk(folder: bytes, prefix: bytes) -> Iterator[Entry]:
    deeper = []
    with os.scandir(folder) as items:
        for item in items:
            path = prefix + item.name
            if item.is_dir(follow_symlinks=False):
                deeper.append((item.path, path + b"/"))
                continue
            entry = entry_of(path, item.stat(follow_symlinks=False), item.path)
            if entry is not None:
                yield entry
    for inner, inner_prefix in deeper:
        yield from _walk(inner, inner_prefix)


def entry_of(path: bytes, info: os.stat_result, full: bytes) -> Optional[Entry]:
    """Return the entry for `path`, given the result of lstat; None when it is neither a file nor a link."""
    if stat.S_ISREG(info.st_mode):
        return Entry(path, "f", info.st_size, info.st_mtime_ns)
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(full)
        return Entry(path, "l", len(target), 0, target)
    return None
