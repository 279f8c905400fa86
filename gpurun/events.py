"""Events that a use case reports while it works, through one callback. Only `cli/` draws them.

A use case whose event carries more than text or bytes defines that event beside its own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something that a person may want to see."""


@dataclass(frozen=True)
class Doing(Event):
    """What goes on from now on."""

    text: str


@dataclass(frozen=True)
class Moved(Event):
    """Bytes of a transfer so far. Where bytes do not tell it, `fraction` says how much is done."""

    done: int
    total: int = 0  # 0: not known
    fraction: float | None = None
    rate: float | None = None  # bytes a second


@dataclass(frozen=True)
class Warned(Event):
    """Something that goes on, and not as it was meant."""

    text: str


@dataclass(frozen=True)
class Confirm(Event):
    """A question that a person must answer with yes: the callback raises where they do not."""

    question: str


Report = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Report to nobody."""
