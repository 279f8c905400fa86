"""Read the ledger of checkpoints that the plugin writes, and choose the best and the last checkpoint.

Both floors import this module: a laptop reads a ledger that was fetched. It does not look at the files; see
checkpoints.py.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, TypeVar, cast

from .files import open_regular, read_json

if TYPE_CHECKING:
    from .schema.checkpoint import Checkpoint, KnownLedger, LedgerCache, LedgerEntry, Reported

E = TypeVar("E", bound=Mapping[str, object])  # a LedgerEntry, or one with more keys
KEPT = 5000  # checkpoints of one run
_WORTH_KEEPING = 1 << 18  # bytes; fewer bytes are quickly read again
_LONGEST_LINE = 1 << 14  # bytes
_MARK = 1 << 12  # bytes before an offset in the file, by which the place is recognized
_LARGEST = 1 << 63
_LAST_MOMENT = 253_402_300_799.0  # unix seconds: the end of the year 9999, the last date that can be shown

MOST = 1 << 28  # bytes of a ledger that are read, the newest: a job can write any number


def read(path: str, cache: Optional[str] = None, *, at_once: Optional[int] = None) -> List[LedgerEntry]:
    """Return the checkpoints that the ledger in the file `path` calls complete, each with the values of its newest
    line.

    A long training writes hundreds of thousands of lines. Lines that were read are cached in the file `cache`, and the
    next call continues there. With `at_once`, at most this many bytes are read now, and later calls read the rest. Only
    the newest `KEPT` entries are kept; the file of an older one is fetched all the same.
    """
    try:
        file = open_regular(path)
    except OSError:
        return []
    with file:
        cached = _read_cache(file, cache)
        newest: Dict[str, LedgerEntry] = {entry["path"]: entry for entry in cached["entries"]}
        start = end = _skip_to(file, cached["offset"])
        for line in _complete_lines(file, at_once):
            end += len(line)
            entry = _entry(line)
            if entry is not None:
                newest.pop(entry["path"], None)
                if entry.get("complete") is True and not entry.get("removed"):
                    newest[entry["path"]] = entry
                    if len(newest) > 2 * KEPT:
                        newest = _trim(newest)
        newest = _trim(newest)
        if cache is not None and end > start + _WORTH_KEEPING:
            _write_cache(file, cache, end, list(newest.values()))
    return list(newest.values())


def _trim(newest: Dict[str, LedgerEntry]) -> Dict[str, LedgerEntry]:
    """Return the newest entries, and the best one."""
    if len(newest) <= KEPT:
        return newest
    rest = list(newest.values())
    kept = [entry for entry in rest[:-KEPT] if entry.get("best") is True][-1:] + rest[-KEPT:]
    return {entry["path"]: entry for entry in kept}


def _read_cache(file: BinaryIO, cache: Optional[str]) -> KnownLedger:
    """Return what was read of this file before. A job may have truncated the file, or replaced it."""
    nothing: KnownLedger = {"offset": 0, "entries": []}
    cached: Optional[LedgerCache] = read_json(cache) if cache is not None else None
    try:
        if (
            cached is None
            or cached["inode"] != os.fstat(file.fileno()).st_ino
            or cached["mark"] != _mark(file, cached["offset"])
        ):
            return nothing
        return {
            "offset": int(cached["offset"]),
            "entries": [cast("LedgerEntry", dict(entry)) for entry in cached["entries"]],
        }
    except (KeyError, TypeError, ValueError, OSError):
        return nothing


def _mark(file: BinaryIO, offset: int) -> str:
    """Return a hash of the bytes before `offset`, which is the end of a line."""
    before = os.pread(file.fileno(), min(offset, _MARK), max(0, offset - _MARK))
    return hashlib.sha256(before).hexdigest() if before.endswith(b"\n") else ""


def _write_cache(file: BinaryIO, cache: str, offset: int, entries: List[LedgerEntry]) -> None:
    """Write the cache without a flush: lost entries are read again."""
    document = {
        "inode": os.fstat(file.fileno()).st_ino,
        "offset": offset,
        "mark": _mark(file, offset),
        "entries": entries,
    }
    beside = "%s.%d" % (cache, os.getpid())
    with suppress(OSError):
        with open(beside, "w") as out:
            json.dump(document, out)
        os.replace(beside, cache)


def _skip_to(file: BinaryIO, start: int) -> int:
    """Seek to `start`, or to the first line of the newest `MOST` bytes when more bytes follow. Return the offset."""
    newest = os.fstat(file.fileno()).st_size - MOST
    file.seek(max(start, newest))
    if newest > start:
        file.readline(_LONGEST_LINE)
    return file.tell()


def _complete_lines(file: BinaryIO, at_once: Optional[int] = None) -> Iterator[bytes]:
    """Yield the lines that end, each with its end.

    A line that is longer than any line of the plugin comes in pieces, which are not entries.
    """
    left = at_once
    while left is None or left > 0:
        line = file.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:  # an incomplete last line is left out
            return
        yield line
        left = None if left is None else left - len(line)


def _entry(line: bytes) -> Optional[LedgerEntry]:
    entry = parse(line)
    if entry is None or not isinstance(entry.get("path"), str) or not entry["path"]:
        return None
    return cast("LedgerEntry", entry)


def best(entries: Iterable[E]) -> Optional[E]:
    """Return the newest entry that the job marks as the best, else the entry with the best monitored value."""
    entries = list(entries)
    marked = [entry for entry in entries if entry.get("best") is True]
    if marked:
        return _best_name(max(marked, key=_age), entries)
    valued = [entry for entry in entries if is_number(entry.get("value")) and entry.get("mode") in ("min", "max")]
    if not valued:
        return None
    sign = 1.0 if max(valued, key=_age)["mode"] == "max" else -1.0
    return _best_name(max(valued, key=lambda entry: (sign * number(entry["value"]), _age(entry))), entries)


def last(entries: Iterable[E]) -> Optional[E]:
    """Return the entry with the highest step, the newest of several."""
    entries = list(entries)
    furthest = max(entries, key=_age, default=None)
    if furthest is None:
        return None
    return max(
        _copies(furthest, entries), key=lambda copy: (copy.get("last") is True, _is_called_last(copy), _age(copy))
    )


def of_content(entries: Iterable[E], sha256: str) -> Optional[E]:
    """Return the entry with these bytes. Of several names, the name that belongs to the best is chosen."""
    entries = [entry for entry in entries if entry.get("sha256") == sha256]
    return _best_name(entries[0], entries) if entries else None


def _best_name(entry: E, entries: List[E]) -> E:
    """Choose the lasting name: `last.ckpt` is often a copy of the best, or a link to it, and is soon overwritten."""
    return max(
        _copies(entry, entries), key=lambda copy: (copy.get("best") is True, not _is_called_last(copy), _age(copy))
    )


def _copies(entry: E, entries: List[E]) -> List[E]:
    """Return all names of the same bytes, saved at the same step. The bytes do not show which name is meant."""
    same = [other for other in entries if entry.get("sha256") and other.get("sha256") == entry["sha256"]]
    return [other for other in same if other.get("step") == entry.get("step")] or [entry]


def _is_called_last(entry: E) -> bool:
    return os.path.basename(str(entry.get("path"))).startswith("last")


def newest_first(entries: Iterable[E]) -> List[E]:
    return sorted(entries, key=_age, reverse=True)


def brief(entry: Mapping[str, object]) -> Checkpoint:
    """Return what a RunRecord has of an entry."""
    numbers = {key: entry.get(key) for key in ("epoch", "step", "value", "attempt")}
    texts = {key: entry.get(key) for key in ("path", "monitor", "mode", "sha256")}
    size, t = entry.get("size"), entry.get("t")
    values = {
        **{key: value if is_number(value) else None for key, value in numbers.items()},
        "size": int(number(size)) if 0 <= number(size) < _LARGEST else None,
        "t": t if 0 <= number(t) < _LAST_MOMENT else None,
        **{key: value if isinstance(value, str) else None for key, value in texts.items()},
    }
    return cast("Checkpoint", values)


def lines(path: str) -> Iterator[LedgerEntry]:
    """Yield the complete lines of the ledger that are entries, in their order."""
    try:
        with open_regular(path) as file:
            _skip_to(file, 0)
            yield from filter(None, map(_entry, _complete_lines(file)))
    except OSError:
        return


class Places:
    """Number the newest line of each path in a ledger, from 1. The order stays right when the clock is set."""

    def __init__(self) -> None:
        self.of: Dict[str, int] = {}
        self._lines = self._offset = 0
        self._inode: Optional[int] = None

    def read_on(self, path: str) -> None:
        """Read the lines that were added; read all lines of a ledger that was rewritten from the start."""
        with suppress(OSError), open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self.of, self._lines, self._offset, self._inode = {}, 0, 0, status.st_ino
            self._offset = _skip_to(file, self._offset)
            for line in _complete_lines(file):
                self._offset += len(line)
                entry = _entry(line)
                if entry is not None:
                    self._lines += 1
                    self.of[entry["path"]] = self._lines


def append(path: str, line: Mapping[str, object]) -> None:
    """Add a line to a file of the plugin. The last line there may be incomplete, after a kill. Raises OSError.

    A job can put a link in the file's place, which could point anywhere on the host: no link is followed.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    with os.fdopen(fd, "r+b", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        torn = status.st_size > 0 and os.pread(fd, 1, status.st_size - 1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(line).encode() + b"\n")


def parse(line: bytes) -> Optional[Reported]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _age(entry: E) -> Tuple[float, float]:
    return number(entry.get("step")), number(entry.get("t"))


def number(value: object) -> float:
    """Return the number, or -1 when the value is not a number."""
    return float(cast("float", value)) if is_number(value) else -1.0


def is_number(value: object) -> bool:
    """Return whether a JSON value is a number: not NaN, and nothing too large for a float."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
