"""What the terminal can show, and numbers and words as people read them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
import time
import unicodedata
from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW, BLUE, CYAN = "1", "2", "31", "32", "33", "34", "36"


def interactive() -> bool:
    """Return whether we may ask somebody."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "", None)


def styled(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """`text` in these styles where `stream` (default: stderr) can show them."""
    if not styles or os.environ.get("NO_COLOR") or not can_redraw(stream or sys.stderr):
        return text
    return f"\x1b[{';'.join(styles)}m{text}\x1b[0m"


def width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def height() -> int:
    return shutil.get_terminal_size((80, 24)).lines


def duration(seconds: float) -> str:
    """Two units at most, the second only when it says something: 45s, 5m 10s, 2h 05m, 12h, 3d 4h."""
    whole = max(int(seconds), 0)
    for (unit, size), (lesser, part) in itertools.pairwise((("d", 86400), ("h", 3600), ("m", 60), ("s", 1))):
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


# Of our own styles alone: others could hide a text, or make it blink.
_OWN_STYLE = r"\[(?:0|1|2|3[12346])(?:;(?:1|2|3[12346]))*m"
_CONTROL = r"\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f"
_DIRECTION = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # what turns the order of a line round
_HARMFUL = re.compile(rf"\x1b(?!{_OWN_STYLE})|[{_CONTROL}{_DIRECTION}]")
_HARMFUL_IN_OUTPUT = re.compile(  # the same in UTF-8; carriage returns and all colours stay
    rb"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2(?:[\x80-\x9f]|\Z)"
    rb"|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)


def harmless(text: str) -> str:
    """Return `text` without control characters, except newline, tab and the styles that gpurun uses.

    Everything that a host sends goes through here before a terminal gets it, except the log itself: names of processes, files
    and tickets come from anybody. Bytes that are no text, which stand in it as surrogates, are shown escaped.
    """
    return _HARMFUL.sub("", text).encode("utf-8", "backslashreplace").decode()


def harmless_line(text: str) -> str:
    """Return `text` as one line without styles, for a place that holds no more than that."""
    return " ".join(without_styles(harmless(text)).split())


def harmless_output(data: bytes) -> bytes:
    """Return what a program on a host printed (an image's build, a check) with nothing but text, line ends and colours."""
    return _HARMFUL_IN_OUTPUT.sub(b"", data)


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text) if "\x1b" in text else text


def visible(text: str) -> int:
    """How many columns a text takes, colours aside."""
    plain = without_styles(text)
    return len(plain) if plain.isascii() else sum(map(_columns, plain))


def _columns(char: str) -> int:
    """2 for a letter of East Asia or an emoji, 0 for what joins the character before it."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cut(text: str, room: int) -> str:
    """`text` in at most `room` columns, the middle left out."""
    if visible(text) <= room:
        return text
    text = without_styles(text)
    head = (room - 1) // 2
    return f"{_beginning(text, room - 1 - head)}…{_beginning(text[::-1], head)[::-1]}"


def cut_end(text: str, room: int) -> str:
    """`text` in at most `room` columns, the end left out."""
    return text if visible(text) <= room else f"{_beginning(without_styles(text), room - 1)}…"


def _beginning(text: str, room: int) -> str:
    """As many characters as fit into `room` columns."""
    for at, taken in enumerate(itertools.accumulate(map(_columns, text))):
        if taken > room:
            return text[:at]
    return text
