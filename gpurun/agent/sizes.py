"""Write sizes for people. Both floors import this module."""

from __future__ import annotations


def size(count: float) -> str:
    """Return bytes in the units of disk vendors: 1 GB is 10^9."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return "%.0f %s" % (count, unit) if count >= 99.5 or unit == "B" else "%.1f %s" % (count, unit)
        count /= 1000
    return "%.1f TB" % count
