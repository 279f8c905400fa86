"""The ledger of checkpoints that the plugin keeps: how it is read, and which of its entries is the best, the last.

Both floors import this module: a laptop reads a ledger that was fetched. It asks nothing about files; see checkpoints.py.
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
_WORTH_KEEPING = 1 << 18  # bytes; fewer are read again in a moment
_LONGEST_LINE = 1 << 14  # bytes
_MARK = 1 << 12  # bytes before a place in the file, by which it is known again
_LARGEST = 1 << 63
_LAST_MOMENT = 253_402_300_799.0  # unix seconds: the end of the year 9999, behind which no date can be shown

MOST = 1 << 28  # bytes of a ledger that are read, the newest: a job can make it of any size


def read(path: str, cache: Optional[str] = None, *, at_once: Optional[int] = None) -> List[LedgerEntry]:
    """Return the checkpoints that the ledger in the file `path` calls whole, each as its newest line tells.

    A long training writes hundreds of thousands of lines. What was read of them is kept in the file `cache`, and the next question
    goes on from there; with `at_once`, it reads so many bytes at most, and what comes behind them is told another time.
    No more than `KEPT` are kept, the newest; the file of an older one is fetched all the same.
    """
    try:
        file = open_regular(path)
    except OSError:
        return []
    with file:
        known = _known(file, cache)
        newest: Dict[str, LedgerEntry] = {entry["path"]: entry for entry in known["entries"]}
        start = end = _skip_to(file, known["offset"])
        for line in _complete_lines(file, at_once):
            end += len(line)
            entry = _entry(line)
            if entry is not None:
                newest.pop(entry["path"], None)
                if entry.get("complete") is True and not entry.get("removed"):
                    newest[entry["path"]] = entry
                    if len(newest) > 2 * KEPT:
                        newest = _trimmed(newest)
        newest = _trimmed(newest)
        if cache is not None and end > start + _WORTH_KEEPING:
            _keep(file, cache, end, list(newest.values()))
    return list(newest.values())


def _trimmed(newest: Dict[str, LedgerEntry]) -> Dict[str, LedgerEntry]:
    """The newest ones, and what is called the best."""
    if len(newest) <= KEPT:
        return newest
    rest = list(newest.values())
    kept = [entry for entry in rest[:-KEPT] if entry.get("best") is True][-1:] + rest[-KEPT:]
    return {entry["path"]: entry for entry in kept}


def _known(file: BinaryIO, cache: Optional[str]) -> KnownLedger:
    """What was read of this very file before. A job may have begun it anew, or written another in its place."""
    nothing: KnownLedger = {"offset": 0, "entries": []}
    kept: Optional[LedgerCache] = read_json(cache) if cache is not None else None
    try:
        if (
            kept is None
            or kept["inode"] != os.fstat(file.fileno()).st_ino
            or kept["mark"] != _mark(file, kept["offset"])
        ):
            return nothing
        return {
            "offset": int(kept["offset"]),
            "entries": [cast("LedgerEntry", dict(entry)) for entry in kept["entries"]],
        }
    except (KeyError, TypeError, ValueError, OSError):
        return nothing


def _mark(file: BinaryIO, offset: int) -> str:
    """What stands before `offset`, which is the end of a line."""
    before = os.pread(file.fileno(), min(offset, _MARK), max(0, offset - _MARK))
    return hashlib.sha256(before).hexdigest() if before.endswith(b"\n") else ""


def _keep(file: BinaryIO, cache: str, offset: int, entries: List[LedgerEntry]) -> None:
    """Not flushed: what is lost is read again."""
    told = {"inode": os.fstat(file.fileno()).st_ino, "offset": offset, "mark": _mark(file, offset), "entries": entries}
    beside = "%s.%d" % (cache, os.getpid())
    with suppress(OSError):
        with open(beside, "w") as out:
            json.dump(told, out)
        os.replace(beside, cache)


def _skip_to(file: BinaryIO, start: int) -> int:
    """Go to `start`, or to the first line of the newest `MOST` bytes where more are behind it; return the place."""
    newest = os.fstat(file.fileno()).st_size - MOST
    file.seek(max(start, newest))
    if newest > start:
        file.readline(_LONGEST_LINE)
    return file.tell()


def _complete_lines(file: BinaryIO, at_once: Optional[int] = None) -> Iterator[bytes]:
    """The lines that end, each with its end; a longer one than any of the plugin's comes in pieces, which are no entries."""
    left = at_once
    while left is None or left > 0:
        line = file.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:  # a torn last line is left out
            return
        yield line
        left = None if left is None else left - len(line)


def _entry(line: bytes) -> Optional[LedgerEntry]:
    entry = parse(line)
    if entry is None or not isinstance(entry.get("path"), str) or not entry["path"]:
        return None
    return cast("LedgerEntry", entry)


def best(entries: Iterable[E]) -> Optional[E]:
    """The one that the job calls the best, the newest of several; else the one with the best monitored value."""
    entries = list(entries)
    called = [entry for entry in entries if entry.get("best") is True]
    if called:
        return _best_named(max(called, key=_age), entries)
    valued = [entry for entry in entries if is_number(entry.get("value")) and entry.get("mode") in ("min", "max")]
    if not valued:
        return None
    sign = 1.0 if max(valued, key=_age)["mode"] == "max" else -1.0
    return _best_named(max(valued, key=lambda entry: (sign * number(entry["value"]), _age(entry))), entries)


def last(entries: Iterable[E]) -> Optional[E]:
    """The one that goes furthest, the newest of several."""
    entries = list(entries)
    found = max(entries, key=_age, default=None)
    if found is None:
        return None
    return max(_copies(found, entries), key=lambda one: (one.get("last") is True, _is_called_last(one), _age(one)))


def of_content(entries: Iterable[E], sha256: str) -> Optional[E]:
    """The one with these bytes; of several names the one that the best is known by."""
    entries = [entry for entry in entries if entry.get("sha256") == sha256]
    return _best_named(entries[0], entries) if entries else None


def _best_named(found: E, entries: List[E]) -> E:
    """`last.ckpt` is often a copy of the best, or a link to it, and is soon another's."""
    return max(_copies(found, entries), key=lambda one: (one.get("best") is True, not _is_called_last(one), _age(one)))


def _copies(found: E, entries: List[E]) -> List[E]:
    """All names of the same bytes, saved at the same step. Which of them is meant, bytes cannot tell."""
    same = [one for one in entries if found.get("sha256") and one.get("sha256") == found["sha256"]]
    return [one for one in same if one.get("step") == found.get("step")] or [found]


def _is_called_last(entry: E) -> bool:
    return os.path.basename(str(entry.get("path"))).startswith("last")


def newest_first(entries: Iterable[E]) -> List[E]:
    return sorted(entries, key=_age, reverse=True)


def brief(entry: Mapping[str, object]) -> Checkpoint:
    """What a RunRecord tells of one."""
    numbers = {key: entry.get(key) for key in ("epoch", "step", "value", "attempt")}
    texts = {key: entry.get(key) for key in ("path", "monitor", "mode", "sha256")}
    size, t = entry.get("size"), entry.get("t")
    told = {
        **{key: value if is_number(value) else None for key, value in numbers.items()},
        "size": int(number(size)) if 0 <= number(size) < _LARGEST else None,
        "t": t if 0 <= number(t) < _LAST_MOMENT else None,
        **{key: value if isinstance(value, str) else None for key, value in texts.items()},
    }
    return cast("Checkpoint", told)


def lines(path: str) -> Iterator[LedgerEntry]:
    """The whole lines of it that are entries, in their order."""
    try:
        with open_regular(path) as file:
            _skip_to(file, 0)
            yield from filter(None, map(_entry, _complete_lines(file)))
    except OSError:
        return


class Places:
    """Which line of a ledger tells of a path last, from 1: a clock that is set meanwhile does not change the order."""

    def __init__(self) -> None:
        self.of: Dict[str, int] = {}
        self._lines = self._offset = 0
        self._inode: Optional[int] = None

    def read_on(self, path: str) -> None:
        """Take in the lines that came since; all of them of a ledger that was begun anew."""
        with suppress(OSError), open_regular(path) as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self.of, self._lines, self._offset, self._inode = {}, 0, 0, found.st_ino
            self._offset = _skip_to(file, self._offset)
            for line in _complete_lines(file):
                self._offset += len(line)
                entry = _entry(line)
                if entry is not None:
                    self._lines += 1
                    self.of[entry["path"]] = self._lines


def append(path: str, line: Mapping[str, object]) -> None:
    """Add a line to this or another file of the plugin's, whose last one a kill may have torn. Raises OSError.

    A job can put a link in its place, which would lead anywhere on the host: none is followed.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    with os.fdopen(fd, "r+b", buffering=0) as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        torn = found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(line).encode() + b"\n")


def parse(line: bytes) -> Optional[Reported]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _age(entry: E) -> Tuple[float, float]:
    return number(entry.get("step")), number(entry.get("t"))


def number(value: object) -> float:
    """-1 for what is none."""
    return float(cast("float", value)) if is_number(value) else -1.0


def is_number(value: object) -> bool:
    """Of what JSON can hold: no NaN, and nothing that a float cannot."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
