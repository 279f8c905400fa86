"""How contact with a host is kept up: what a broken connection means, when it is tried again, and when it is not."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpurun.errors import ContactLost, GpurunError

GIVE_UP_AFTER = 24 * 3600.0  # seconds without contact, while this laptop is awake
PAUSES = (0.3, 0.5, 1.0, 1.5)  # seconds before each new try; the last one repeats
JUMP = 5.0  # seconds that a clock may be ahead of what was expected
# What a person, or an administrator, must mend; see ssh/diagnose.py.
_FOR_A_PERSON = ("key_unknown", "key_changed", "key_revoked", "not_let_in", "no_ssh", "handshake")


def worth_trying(error: GpurunError) -> bool:
    """Whether what failed may mend itself."""
    return isinstance(error, ContactLost) or error.code not in _FOR_A_PERSON


def connect_within(first: float) -> float:
    """Seconds that a new try may take, from those that the first one took."""
    return min(max(2 * first, 3.0), 15.0)


class Pulse:
    """Tells that the laptop slept, or this process was frozen. Asked at least each second."""

    def __init__(
        self, wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic, every: float = 1.0
    ) -> None:
        self._clocks, self._every = (wall, clock), every
        self._last = [each() for each in self._clocks]

    def slept(self) -> bool:
        """Whether a clock is ahead of what it should show since the last question."""
        now = [each() for each in self._clocks]
        ahead = max(new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return ahead > self._every + JUMP


class Recovery:
    """The tries after one loss of contact."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began, self._tries = clock, clock(), 0

    def goes_on(self) -> bool:
        return self._clock() < self._began + GIVE_UP_AFTER

    def pause(self) -> float:
        """Seconds before the next try."""
        self._tries += 1
        return PAUSES[min(self._tries, len(PAUSES)) - 1]
