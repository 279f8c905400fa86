"""Which port of this laptop a door gets: the same for the same service each time."""

from __future__ import annotations

import hashlib

FIRST, COUNT = 10000, 20000  # below those that the system hands out by itself


def stable(*service: str) -> int:
    """A port that these words alone decide about."""
    digest = hashlib.sha256("\0".join(service).encode()).digest()
    return FIRST + int.from_bytes(digest[:4], "big") % COUNT
