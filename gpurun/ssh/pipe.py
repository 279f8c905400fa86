"""Reading a program's stdout by marks and sizes, each within a time."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from gpurun.process import Process, TimedOut

_CHUNK = 1 << 18


class TooLong(Exception):
    """A program wrote more than anybody who follows the wire would."""


class Patience:
    """How long to wait. With `started`, the clock stands still until that says True (a person is being asked).

    While bytes come, `heard` lets the clock begin anew, `in_all` seconds at most: a long answer over a slow line takes its time.
    """

    def __init__(
        self, seconds: float | None, started: Callable[[], bool] | None = None, *, in_all: float | None = None
    ) -> None:
        self.seconds, self.in_all = seconds, in_all
        self._started = started
        self._last: float | None = None
        self._end = None if seconds is None or started else time.monotonic() + seconds

    def restart(self) -> None:
        """Let a clock that runs begin anew."""
        if self._end is not None and self.seconds is not None:
            self._end = time.monotonic() + self.seconds

    def heard(self) -> None:
        """Bytes came."""
        if self.in_all is None or self._end is None:
            return
        now = time.monotonic()
        self._last = now + self.in_all if self._last is None else self._last
        self.restart()
        self._end = min(self._end, self._last)

    def left(self) -> float | None:
        """Seconds until the next look, 0 or less when the time is over, None for ever."""
        if self._started is not None:
            if not self._started():
                return 0.1
            self._started = None
            self._end = None if self.seconds is None else time.monotonic() + self.seconds
        return None if self._end is None else self._end - time.monotonic()

    @property
    def running(self) -> bool:
        """Whether the clock runs."""
        return self._started is None


class Pipe:
    """Our end of a started program: bytes in, lines and sizes out. It reads ahead, so nobody else may read stdout."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the program was started without pipes")
        self._stdin, self._fd = process.stdin, process.stdout.fileno()
        self._rest = bytearray()

    def feed(self, data: bytes, *, more: bool = False) -> None:
        """Write to stdin, and close it unless there will be `more`. It never blocks, and an end of the program is seen by
        reading."""
        if len(data) <= 32768:  # fits into the pipe
            self._feed(data, more)
        else:
            threading.Thread(target=self._feed, args=(data, more), daemon=True).start()

    def _feed(self, data: bytes, more: bool) -> None:
        try:
            self._stdin.write(data)
            self._stdin.flush()
            if not more:
                self._stdin.close()
        except (OSError, ValueError):
            pass

    def until(self, mark: bytes, patience: Patience, *, most: int | None = None) -> bytes | None:
        """What stands before `mark`, which is consumed; None when the program ended without it.

        Raises TimedOut, and TooLong when there are more than `most` bytes.
        """
        looked = 0
        while True:
            at = self._rest.find(mark, looked)
            if most is not None and (at if at >= 0 else len(self._rest)) > most:
                raise TooLong
            if at >= 0:
                before = bytes(self._rest[:at])
                del self._rest[: at + len(mark)]
                return before
            looked = max(0, len(self._rest) - len(mark))
            if not self._more(patience):
                return None

    def exactly(self, size: int, patience: Patience) -> bytes | None:
        """The next `size` bytes; None when the program ended before. Raises TimedOut."""
        while len(self._rest) < size:
            if not self._more(patience):
                return None
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    @property
    def unread(self) -> bytes:
        """What came and was not asked for."""
        return bytes(self._rest)

    def _more(self, patience: Patience) -> bool:
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
