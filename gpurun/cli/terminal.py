"""What the terminal can show, and numbers and words as people read them."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from itertools import pairwise
from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW, BLUE, CYAN = "1", "2", "31", "32", "33", "34", "36"


def interactive() -> bool:
    """Whether we may ask somebody."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "", None)


def styled(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """`text` in these styles where `stream` (stderr unless told) can show them."""
    if not styles or os.environ.get("NO_COLOR") or not can_redraw(stream or sys.stderr):
        return text
    return f"\x1b[{';'.join(styles)}m{text}\x1b[0m"


def width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def size(count: float) -> str:
    """Bytes as disks are sold: 1 GB is 10^9."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 99.5 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Two units at most, the second only when it says something: 45s, 5m 10s, 2h 05m, 12h, 3d 4h."""
    whole = max(int(seconds), 0)
    for (unit, size), (lesser, part) in pairwise((("d", 86400), ("h", 3600), ("m", 60), ("s", 1))):
        if whole >= size:
            rest = whole % size // part
            digits = f"{rest:02}" if lesser != "h" else str(rest)
            return f"{whole // size}{unit}" + (f" {digits}{lesser}" if rest else "")
    return f"{whole}s"


def ago(moment: float, now: float | None = None) -> str:
    """How long it is since `moment` (unix seconds), in one unit where that is enough: 40s, 5m, 3h, 2d."""
    passed = max((time.time() if now is None else now) - moment, 0)
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= seconds:
            return f"{int(passed // seconds)}{unit}"
    return f"{int(passed)}s"


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 file`, `3 files`."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def harmless(text: str) -> str:
    """`text` without control characters but newline, tab and colours: names of processes and files come from anybody.

    Bytes that are no text, which stand in it as surrogates, are shown escaped: no terminal takes them.
    """
    plain = re.sub(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]", "", text)
    return plain.encode("utf-8", "backslashreplace").decode()


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text) if "\x1b" in text else text


def visible(text: str) -> int:
    """How many columns a text takes, colours aside."""
    return len(without_styles(text))


def cut(text: str, room: int) -> str:
    """`text` in at most `room` columns, the middle left out."""
    if len(text) <= room:
        return text
    head = (room - 1) // 2
    return text[: room - 1 - head] + "…" + (text[-head:] if head else "")
