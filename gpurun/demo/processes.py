"""Processes that carry a mark in their environment, wherever they have detached themselves to."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def marked(name: str, value: str) -> list[int]:
    """Pids of this user's processes whose environment holds `name=value`; none where there is no /proc."""
    mark = os.fsencode(f"{name}={value}")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at, and those of others cannot be read.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def end_marked(name: str, value: str, patience: float = 10.0) -> None:
    """Kill them until none is left, for `patience` seconds at most: what is killed may just have forked."""
    deadline = time.monotonic() + patience
    while (pids := marked(name, value)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
