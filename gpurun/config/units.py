"""Time spans and sizes as users write them: "1h30m", "32GB". A number needs a unit: nobody means 12 seconds by 12."""

from __future__ import annotations

import math
import re
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


def size(value: Any) -> int:
    """Return the bytes in "32GB", "512MiB" or "1.5T". Raise ValueError for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('wants a size such as "32GB"')  # noqa: TRY004
    refuse_bare_number(str(value), "GB", "MB")
    match = re.fullmatch(r"(\d*\.?\d+)(?:([kmgtpe])(i?)b|([kmgtpe])|b)", str(value).lower().replace(" ", ""))
    number, prefix, binary = (match[1], match[2] or match[4] or "", match[3]) if match else ("0", "", "")
    count = int(float(number) * (1024 if binary else 1000) ** " kmgtpe".index(prefix or " "))
    if count <= 0:
        raise ValueError('wants a size such as "32GB" or "512MiB"')
    return count


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
