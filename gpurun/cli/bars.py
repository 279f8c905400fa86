"""Progress bars of jobs, on a terminal that is narrower than they are.

A job has no terminal, so tqdm does not know how wide its bar may be. One that takes two lines is not overwritten by the
next: a carriage return leads to the second of them, and the bar fills the screen. What follows a carriage return is
therefore not wrapped; the end of it is cut.
"""

from __future__ import annotations

import re

NO_WRAP, WRAP = b"\x1b[?7l", b"\x1b[?7h"
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_HALF_A_CHARACTER = re.compile(rb"[\xc0-\xf7]\Z|[\xe0-\xf7][\x80-\xbf]\Z|[\xf0-\xf7][\x80-\xbf]{2}\Z")


class Unwrapped:
    """Called with each part of a log; what it returns is for a terminal."""

    def __init__(self) -> None:
        self._in_bar = False
        self._off = False  # whether the terminal does not wrap now
        self._end = b""

    def __call__(self, data: bytes) -> bytes:
        shown = bytearray()
        for line in _LINE.findall(data):
            begin = 0 if self._in_bar else _bar_in(line)
            shown += line[:begin]
            if begin < len(line):
                shown += b"" if self._off else NO_WRAP
                shown += line[begin:]
                self._off = True
            self._in_bar = begin < len(line) and not line.endswith(b"\n")
            # The terminal wraps again at each end, whatever may become of us; but not in the middle of a character.
            self._end = (self._end + line)[-4:]
            if self._off and not _HALF_A_CHARACTER.search(self._end):
                shown += WRAP
                self._off = False
        return bytes(shown)


def _bar_in(line: bytes) -> int:
    """Where the first carriage return is that does not belong to the line's end; the line's length when there is none."""
    end = len(line) if not line.endswith(b"\n") else len(line.rstrip(b"\r\n"))
    at = line.find(b"\r", 0, end)
    return len(line) if at < 0 else at
