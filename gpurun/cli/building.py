"""What the host prints while it prepares a run, as one line: `building the image, step 4 of 9, 1m 12s`."""

from __future__ import annotations

import sys
import time
from collections import deque

from gpurun.cli import output
from gpurun.cli.progress import Say
from gpurun.cli.terminal import can_redraw, harmless_output

TAIL = 20  # lines that are shown of a build that failed
LONGEST = 500  # bytes that are kept of one of them


class Tail:
    """The last lines of what a program on the host prints."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=TAIL)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = self._rest[-LONGEST:]
        # A bar that was drawn over itself: its last state is what a terminal would show.
        self._lines.extend(line.rpartition(b"\r")[2][:LONGEST] for line in lines if line.strip())

    def show(self) -> None:
        lines = [*self._lines, *([self._rest] if self._rest else [])][-TAIL:]
        if lines:
            output.note(
                "what the host printed:" if len(lines) < TAIL else f"the last {TAIL} lines of what the host printed:"
            )
            output.say_bytes(harmless_output(b"\n".join(lines)) + b"\n")


class Building:
    """Reads the output as it comes. On a terminal a line that changes, elsewhere one line for each step."""

    def __init__(self, say: Say) -> None:
        from gpurun.hosts.warm import Steps

        self._say = say
        self._steps = Steps()
        self.doing = ""  # empty as long as nothing is made
        self._began, self._printed = 0.0, ""
        self.tail = Tail()

    def feed(self, data: bytes) -> None:
        self.tail.feed(data)
        self._steps.feed(data)
        if self._steps.doing != self.doing:
            self.doing, self._began = self._steps.doing, time.monotonic()
        if self.doing and can_redraw(sys.stderr):
            self._say(", ".join(filter(None, (self.doing, self._steps.at))), since=self._began)
        elif self._steps.step != self._printed:
            self._printed = self._steps.step
            output.note(self._printed)
