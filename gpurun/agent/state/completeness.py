"""Is a file whole, or is somebody writing it? No lock tells, so this gathers what evidence a host gives.

A file is taken for whole when it held still while it was read, nobody has it open for writing, its last
change is a while ago, and, for a zip (what `torch.save` writes), its end is there.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Dict, FrozenSet, Iterable, Set, Tuple

# A writer that stopped for longer than this without holding the file open is taken to be done.
QUIET_SECONDS = 2.0
# A zip says by itself that it is finished; then only the clock tick by which two writes could share an mtime
# matters.
QUIET_ZIP_SECONDS = 0.1

ZIP_START = b"PK\x03\x04"
ZIP_END = b"PK\x05\x06"
_ZIP_END_SIZE = 22
_ZIP_COMMENT_MAX = 65535

Identity = Tuple[int, int]  # device, inode
Stamp = Tuple[int, int, int, int, int]


def stamp(found: os.stat_result) -> Stamp:
    """Changes whenever the file does: also ctime, which nobody can set back."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def is_young(found: os.stat_result, now: float, quiet: float = QUIET_SECONDS) -> bool:
    """Its content changed just now. An mtime far ahead was set by somebody, or by a server's clock: ctime
    decides.
    """
    return abs(now - found.st_mtime) < quiet or abs(now - found.st_ctime) < min(quiet, QUIET_ZIP_SECONDS)


def begins_as_zip(file: BinaryIO) -> bool:
    return os.pread(file.fileno(), len(ZIP_START), 0) == ZIP_START


def has_zip_end(file: BinaryIO, size: int) -> bool:
    """The end-of-central-directory record stands where a finished zip has it: last, before its own comment."""
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
    """Those of `wanted` that a process holds open for writing, as far as /proc shows it to us.

    Other users' processes do not show; where there is no /proc nothing does.
    """
    rest: Set[Identity] = set(wanted)
    found: Dict[Identity, bool] = {}
    if rest:
        for pid in _pids():
            _look(pid, rest, found)
    return frozenset(found)


def _pids() -> Iterable[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return []


def _look(pid: str, wanted: Set[Identity], found: Dict[Identity, bool]) -> None:
    folder = "/proc/" + pid + "/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:  # another user's, or gone
        return
    for descriptor in descriptors:
        try:
            opened = os.stat(folder + "/" + descriptor)
            if stat.S_ISREG(opened.st_mode) and identity(opened) in wanted and _writes(pid, descriptor):
                found[identity(opened)] = True
        except OSError:  # closed meanwhile
            continue


def _writes(pid: str, descriptor: str) -> bool:
    with open("/proc/" + pid + "/fdinfo/" + descriptor, "rb") as file:
        for line in file:
            if line.startswith(b"flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
