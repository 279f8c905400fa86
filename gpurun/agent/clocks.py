"""How long ago something was, on a host whose clock may be set meanwhile.

A mark is `{"t": unix seconds, "up": seconds since the boot, "boot": which boot}`. Between two marks of one boot the
time since the boot decides: no NTP, no administrator and no time zone of an RTC moves it. Unix seconds are for people,
and for the order of what happened in two boots.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

from . import machine

if TYPE_CHECKING:
    from .schema.run import Mark

_BOOT = 8  # characters of the boot id that a mark keeps
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it counts the time that a host sleeps, too


def uptime() -> float:
    """Return the seconds since the boot."""
    return round(time.clock_gettime(_CLOCK), 3)


def mark() -> Mark:
    """Return the present moment as a mark."""
    return {"t": time.time(), "up": uptime(), "boot": machine.boot_id()[:_BOOT]}


def between(earlier: Mark, later: Mark) -> Optional[float]:
    """Return the seconds from one mark to another of the same boot; None where that cannot be told."""
    begun, ended = earlier.get("up"), later.get("up")
    if not isinstance(begun, (int, float)) or not isinstance(ended, (int, float)):
        return None
    if not earlier.get("boot") or earlier.get("boot") != later.get("boot") or ended < begun:
        return None
    return float(ended - begun)


def since(earlier: Mark, now: Optional[Mark] = None) -> float:
    """Return the seconds since a mark, never less than 0; by unix seconds where it is of another boot, or has them alone."""
    now = now or mark()
    passed = between(earlier, now)
    return max(now["t"] - float(earlier["t"]), 0.0) if passed is None else passed
