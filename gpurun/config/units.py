"""Time spans as users write them: "12h", "90m", "1h30m". A number needs a unit, because 12 is 12 seconds to nobody."""

from __future__ import annotations

import math
from typing import Any


def span(value: Any, *units: str) -> float:
    """Return the seconds in "12h", "90m" or "1h30m"; 0 needs no unit. Raise ValueError for everything else.

    `units`: those to offer for a number that has none, the likely one first.
    """
    from pytimeparse2 import parse

    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str):
        value = str(value)
    refuse_bare_number(value, *(units or ("h", "m", "s")))
    seconds = parse(value)
    if seconds is None or seconds < 0:
        raise ValueError('wants a time span such as "12h", "90m" or "1h30m"')
    return float(seconds)


def refuse_bare_number(value: str, *units: str) -> None:
    """Raise ValueError when `value` is a number above 0 without a unit. `units`: those to write behind it, the likely one first.

    No unit makes anything else a quantity: whoever reads it has a better message.
    """
    number = value.strip()
    try:
        quantity = float(number)
    except ValueError:
        return
    if not 0 < quantity < math.inf:
        return
    *first, last = [f'"{number}{unit}"' for unit in units]
    raise ValueError(f"{number} what? Write {', '.join(first)} or {last}")
