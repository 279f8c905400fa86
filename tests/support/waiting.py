"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Wait until the condition holds; fail after `timeout` seconds, which a busy machine may need."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"it did not come in {timeout:.0f} s"
        time.sleep(0.02)
