"""Choose the local port of a service: the same port each time, so that bookmarks and cookies stay valid."""

from __future__ import annotations

import hashlib

FIRST, COUNT = 10000, 20000  # below the range from which the system assigns ports


def stable(*service: str) -> int:
    """Return a port that depends only on the words of `service`."""
    digest = hashlib.sha256("\0".join(service).encode()).digest()
    return FIRST + int.from_bytes(digest[:4], "big") % COUNT
