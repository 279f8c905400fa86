"""Decide whether a file is complete, or a program still writes it.

There is no lock to ask, so several signs are combined.

A file counts as complete when it did not change while it was read, no process has it open for writing, its last change
is a while ago, and, for a zip (which `torch.save` writes), its end is present.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Dict, FrozenSet, Iterable, Set, Tuple

# A writer that stopped for longer than this without having the file open counts as finished.
QUIET_SECONDS = 2.0
# The end of a zip shows that it is finished; then only the clock tick matters in which two writes could share an mtime.
QUIET_ZIP_SECONDS = 0.1

ZIP_START = b"PK\x03\x04"
ZIP_END = b"PK\x05\x06"
_ZIP_END_SIZE = 22
_ZIP_COMMENT_MAX = 65535

Identity = Tuple[int, int]  # device, inode
Stamp = Tuple[int, int, int, int, int]


def stamp(status: os.stat_result) -> Stamp:
    """Return values that change whenever the file does. They include ctime, which no program can set back."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def is_young(status: os.stat_result, now: float, quiet: float = QUIET_SECONDS) -> bool:
    """Return whether the file changed a moment ago.

    An mtime far in the future was set by a program, or by a server's clock: then ctime decides.
    """
    return abs(now - status.st_mtime) < quiet or abs(now - status.st_ctime) < min(quiet, QUIET_ZIP_SECONDS)


def begins_as_zip(file: BinaryIO) -> bool:
    return os.pread(file.fileno(), len(ZIP_START), 0) == ZIP_START


def has_zip_end(file: BinaryIO, size: int) -> bool:
    """Return whether the end-of-central-directory record is in its place: last, before its own comment."""
    start = max(0, size - _ZIP_END_SIZE - _ZIP_COMMENT_MAX)
    tail = os.pread(file.fileno(), size - start, start)
    at = tail.rfind(ZIP_END)
    while at >= 0:
        comment = int.from_bytes(tail[at + 20 : at + 22], "little")
        if at + _ZIP_END_SIZE + comment == len(tail):
            return True
        at = tail.rfind(ZIP_END, 0, at)
    return False


def open_for_writing(wanted: Iterable[Identity]) -> FrozenSet[Identity]:
    """Return those of `wanted` that a process has open for writing, as far as /proc shows it to this user.

    Processes of other users are invisible; without /proc all are.
    """
    rest: Set[Identity] = set(wanted)
    written: Dict[Identity, bool] = {}
    if rest:
        for pid in _pids():
            _find_open_files(pid, rest, written)
    return frozenset(written)


def _pids() -> Iterable[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return []


def _find_open_files(pid: str, wanted: Set[Identity], written: Dict[Identity, bool]) -> None:
    folder = "/proc/" + pid + "/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:  # the process is another user's, or gone
        return
    for descriptor in descriptors:
        try:
            opened = os.stat(folder + "/" + descriptor)
            if stat.S_ISREG(opened.st_mode) and identity(opened) in wanted and _writes(pid, descriptor):
                written[identity(opened)] = True
        except OSError:  # it was closed in the meantime
            continue


def _writes(pid: str, descriptor: str) -> bool:
    with open("/proc/" + pid + "/fdinfo/" + descriptor, "rb") as file:
        for line in file:
            if line.startswith(b"flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
