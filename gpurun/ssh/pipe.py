"""Read a program's stdout up to marks and by sizes, each within a time limit."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from gpurun.process import Process, TimedOut

_CHUNK = 1 << 18


class TooLong(Exception):
    """A program wrote more than the protocol allows."""


class Patience:
    """A time limit. With `started`, the clock starts when that returns True (until then ssh prompts the user).

    Each `heard` restarts the clock, for `in_all` seconds at most, because a long answer needs time on a slow connection.
    """

    def __init__(
        self, seconds: float | None, started: Callable[[], bool] | None = None, *, in_all: float | None = None
    ) -> None:
        self.seconds, self.in_all = seconds, in_all
        self._started = started
        self._last: float | None = None
        self._end = None if seconds is None or started else time.monotonic() + seconds

    def heard(self) -> None:
        """Restart the clock, because bytes came."""
        if self.in_all is None or self._end is None or self.seconds is None:
            return
        now = time.monotonic()
        self._last = now + self.in_all if self._last is None else self._last
        self._end = min(now + self.seconds, self._last)

    def left(self) -> float | None:
        """Return the seconds to wait now, 0 or less when the time is over, None for no limit."""
        if self._started is not None:
            if not self._started():
                return 0.1
            self._started = None
            self._end = None if self.seconds is None else time.monotonic() + self.seconds
        return None if self._end is None else self._end - time.monotonic()

    @property
    def running(self) -> bool:
        """Return whether the clock runs."""
        return self._started is None


class Pipe:
    """The pipes of a started program. It reads ahead, so nothing else may read the program's stdout."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the program was started without pipes")
        self._stdin, self._fd = process.stdin, process.stdout.fileno()
        self._rest = bytearray()

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Write to stdin without blocking, and close it unless `more` follows. Reading shows whether the program has ended."""
        if len(data) <= 32768:  # fits into the pipe
            self._write(data, more)
        else:
            threading.Thread(target=self._write, args=(data, more), daemon=True).start()

    def _write(self, data: bytes, more: bool) -> None:
        try:
            self._stdin.write(data)
            self._stdin.flush()
            if not more:
                self._stdin.close()
        except (OSError, ValueError):
            pass

    def read_until(self, mark: bytes, patience: Patience, *, most: int | None = None) -> bytes | None:
        """Return the bytes before `mark` and consume the mark; return None when the program ended without it.

        Raises TimedOut, and TooLong when there are more than `most` bytes.
        """
        searched = 0
        while True:
            at = self._rest.find(mark, searched)
            if most is not None and (at if at >= 0 else len(self._rest)) > most:
                raise TooLong
            if at >= 0:
                before = bytes(self._rest[:at])
                del self._rest[: at + len(mark)]
                return before
            searched = max(0, len(self._rest) - len(mark))
            if not self._read_more(patience):
                return None

    def read_exactly(self, size: int, patience: Patience) -> bytes | None:
        """Return the next `size` bytes, or None when the program ended before. Raises TimedOut."""
        while len(self._rest) < size:
            if not self._read_more(patience):
                return None
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    @property
    def unread(self) -> bytes:
        """The bytes that came and were not read yet."""
        return bytes(self._rest)

    def _read_more(self, patience: Patience) -> bool:
        while True:
            left = patience.left()
            if left is not None and left <= 0:
                raise TimedOut
            if select.select([self._fd], [], [], left)[0]:
                break
        data = os.read(self._fd, _CHUNK)
        self._rest += data
        patience.heard()
        return bool(data)
