"""How contact with a host is kept up: what shows that it is lost, when it is tried again, and when a person is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from gpurun import errors
from gpurun.errors import ContactLost, HostUnreachable

if TYPE_CHECKING:
    from gpurun.remote.wire import Wire

T = TypeVar("T")

GIVE_UP_AFTER = 24 * 3600.0  # seconds without contact, while this laptop is awake
PAUSES = (0.3, 0.5, 1.0, 1.5)  # seconds before each new try; the last one repeats
SILENT = 10.0  # seconds without a byte: the peer is dead. A stream beats at least every 5
SILENT_AFTER_SLEEP = 6.0
LONGEST = 15.0  # seconds for a new try
GROWTH = 1.3  # each try may take longer than the one before: the way to the host may have become slow
JUMP = 5.0  # seconds that a clock may be ahead of what was expected
LOOK_CLOSER_EVERY = 5  # tries that failed slowly
# What a person, or an administrator, must mend; see ssh/diagnose.py.
_FOR_A_PERSON = (
    errors.KEY_UNKNOWN,
    errors.KEY_CHANGED,
    errors.KEY_REVOKED,
    errors.NOT_LET_IN,
    errors.NO_SSH,
    errors.HANDSHAKE,
)


def for_a_person(error: HostUnreachable) -> bool:
    """Return whether trying again cannot mend what failed."""
    return not isinstance(error, ContactLost) and error.code in _FOR_A_PERSON


def connect_within(first: float) -> float:
    """Seconds that a new try may take, from those that the first one took."""
    return min(max(2 * first, 3.0), LONGEST)


def reach_again(
    wire: Wire,
    attempt: Callable[[Wire, float | None], T],
    *,
    within: float,
    asks: Callable[[], None],
    wait: Callable[[float], bool],
    clock: Callable[[], float] = time.monotonic,
) -> T | None:
    """`attempt` until it gets through; None when `wait`, which sleeps, says that nobody wants it any more.

    It is given a wire that asks nobody, and the seconds that it may take. Only when the host turns out to want a person,
    who is there, it gets the user's own wire and all the time in the world, once: never are there failed logins in a loop.
    Raises HostUnreachable for what trying cannot mend, and after a day.
    """
    began, tries = clock(), 0
    while True:
        started = clock()
        try:
            return attempt(wire.quiet(), within)
        except HostUnreachable as error:
            failure = error
        within = min(within * GROWTH, LONGEST)
        tries += 1
        # ssh ended by itself, and not for want of an answer: why?
        refused = not isinstance(failure, ContactLost) and not failure.code
        if refused and (clock() - started < connect_timeout(within) or tries % LOOK_CLOSER_EVERY == 0):
            failure = _look_closer(wire, failure)
        if for_a_person(failure):
            if not wire.connection.interactive:
                raise failure
            asks()
            return attempt(wire, None)
        if clock() > began + GIVE_UP_AFTER:
            raise failure
        if wait(PAUSES[min(tries, len(PAUSES)) - 1]):
            return None


def connect_timeout(within: float) -> int:
    """Seconds for TCP and the server's first line, of those that a try may take."""
    return max(3, round(within / 2))


def _look_closer(wire: Wire, failure: HostUnreachable) -> HostUnreachable:
    from gpurun.ssh import diagnose  # Paramiko is slow to load

    found = diagnose.explain(wire.quiet().connection, failure.what)
    return found if isinstance(found, HostUnreachable) else failure


class Pulse:
    """Tells that the laptop slept, or this process was frozen. Asked at least each second."""

    def __init__(
        self, wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic, every: float = 1.0
    ) -> None:
        self._clocks, self._every = (wall, clock), every
        self._last = [each() for each in self._clocks]

    def slept(self) -> bool:
        """Return whether a clock is ahead of what it should show since the last question."""
        now = [each() for each in self._clocks]
        ahead = max(new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return ahead > self._every + JUMP


class _Heard(Protocol):
    heard: float  # by the monotonic clock

    def cut(self) -> None: ...


class Vigil:
    """Breaks a stream off on which nothing comes, while the `with` lasts; whoever reads it gets a ContactLost.

    `speak` is called each second, and told whether the laptop has just woken. `traffic` is when bytes last came on another
    way of the same connection.
    """

    def __init__(
        self,
        stream: _Heard,
        *,
        traffic: Callable[[], float] = lambda: 0.0,
        speak: Callable[[bool], None] = lambda woken: None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._stream, self._traffic, self._speak, self._clock = stream, traffic, speak, clock
        self._over = threading.Event()
        self._wait = wait or self._over.wait
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Vigil:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pulse, woken = Pulse(clock=self._clock), None
        while not self._wait(1.0):
            now, slept = self._clock(), pulse.slept()
            if slept:
                woken = now
            self._speak(slept)
            last = max(self._stream.heard, self._traffic())
            if woken is not None and last > woken:
                woken = None
            if now > (woken + SILENT_AFTER_SLEEP if woken is not None else last + SILENT):
                with suppress(OSError):
                    self._stream.cut()
                return
