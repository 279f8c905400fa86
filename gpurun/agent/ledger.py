"""The ledger of checkpoints that the plugin keeps: how it is read, and which of its entries is the best, the last.

Both floors import this module: a laptop reads a ledger that was fetched. It asks nothing about files; see checkpoints.py.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from .files import read_untrusted

Entry = Dict[str, Any]
_LARGEST = 1 << 63
_LAST_MOMENT = 253_402_300_799.0  # unix seconds: the end of the year 9999, behind which no date can be shown

MOST = 1 << 23  # bytes of a ledger that are read, the newest: a job can make it of any size


def read(path: str) -> List[Entry]:
    """The checkpoints that the ledger in the file `path` calls whole, each as its newest line tells."""
    newest: Dict[str, Entry] = {}
    for entry in lines(path):
        newest[entry["path"]] = entry
    return [entry for entry in newest.values() if entry.get("complete") is True and not entry.get("removed")]


def best(entries: Iterable[Entry]) -> Optional[Entry]:
    """The one that the job calls the best, the newest of several; else the one with the best monitored value."""
    entries = list(entries)
    called = [entry for entry in entries if entry.get("best") is True]
    if called:
        return max(called, key=_age)
    valued = [entry for entry in entries if is_number(entry.get("value")) and entry.get("mode") in ("min", "max")]
    if not valued:
        return None
    sign = 1.0 if max(valued, key=_age)["mode"] == "max" else -1.0
    return max(valued, key=lambda entry: (sign * entry["value"], _age(entry)))


def last(entries: Iterable[Entry]) -> Optional[Entry]:
    """The one that goes furthest, the newest of several."""
    return max(entries, key=_age, default=None)


def newest_first(entries: Iterable[Entry]) -> List[Entry]:
    return sorted(entries, key=_age, reverse=True)


def brief(entry: Optional[Entry]) -> Optional[Entry]:
    """What a RunRecord tells of one."""
    if entry is None:
        return None
    numbers = {key: entry.get(key) for key in ("epoch", "step", "value", "attempt")}
    texts = {key: entry.get(key) for key in ("path", "monitor", "mode", "sha256")}
    size, t = entry.get("size"), entry.get("t")
    return {
        **{key: value if is_number(value) else None for key, value in numbers.items()},
        "size": int(number(size)) if 0 <= number(size) < _LARGEST else None,
        "t": t if 0 <= number(t) < _LAST_MOMENT else None,
        **{key: value if isinstance(value, str) else None for key, value in texts.items()},
    }


def lines(path: str) -> Iterator[Entry]:
    """The whole lines of it that are entries, in their order."""
    try:
        told = read_untrusted(path, MOST).split(b"\n")[:-1]  # a torn last line is left out
    except OSError:
        return
    for line in told:
        entry = parse(line)
        if entry is not None and isinstance(entry.get("path"), str) and entry["path"]:
            yield entry


def append(path: str, line: Dict[str, Any]) -> None:
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


def parse(line: bytes) -> Optional[Dict[str, Any]]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _age(entry: Entry) -> Tuple[float, float]:
    return number(entry.get("step")), number(entry.get("t"))


def number(value: Any) -> float:
    """-1 for what is none."""
    return float(value) if is_number(value) else -1.0


def is_number(value: Any) -> bool:
    """Of what JSON can hold: no NaN, and nothing that a float cannot."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
