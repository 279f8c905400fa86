"""Measure how long ago something was, on a host whose clock may be set in the meantime.

A mark is `{"t": unix seconds, "up": seconds since the boot, "boot": which boot}`. Between two marks of one boot the
time since the boot decides: NTP, an administrator or the time zone of an RTC cannot change it. Unix seconds are for
people, and for the order of events of two boots.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

from . import machine

if TYPE_CHECKING:
    from .schema.run import Mark

_BOOT = 8  # characters of the boot id that a mark keeps
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it also counts the time that a host sleeps


def uptime() -> float:
    """Return the seconds since the boot."""
    return round(time.clock_gettime(_CLOCK), 3)


def mark() -> Mark:
    """Return the present moment as a mark."""
    return {"t": time.time(), "up": uptime(), "boot": machine.boot_id()[:_BOOT]}


def between(earlier: Mark, later: Mark) -> Optional[float]:
    """Return the seconds from one mark to another of the same boot, or None when they are unknown."""
    started_up, ended_up = earlier.get("up"), later.get("up")
    if not isinstance(started_up, (int, float)) or not isinstance(ended_up, (int, float)):
        return None
    if not earlier.get("boot") or earlier.get("boot") != later.get("boot") or ended_up < started_up:
        return None
    return float(ended_up - started_up)


def since(earlier: Mark, now: Optional[Mark] = None) -> float:
    """Return the seconds since a mark, never less than 0.

    For a mark of another boot, or one that has only unix seconds, these decide.
    """
    now = now or mark()
    passed = between(earlier, now)
    return max(now["t"] - float(earlier["t"]), 0.0) if passed is None else passed
