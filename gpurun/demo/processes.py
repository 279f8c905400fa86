"""Find and end processes by a mark in their environment, also after they have detached."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def marked(name: str, value: str) -> list[int]:
    """Return the pids of this user's processes with `name=value` in their environment; none without /proc."""
    mark = os.fsencode(f"{name}={value}")
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        # The process may end meanwhile, and other users' processes cannot be read.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                pids.append(int(entry.name))
    return pids


def end_marked(name: str, value: str, patience: float = 10.0) -> None:
    """Kill the marked processes until none is left, for `patience` seconds at most: one may have forked just before."""
    deadline = time.monotonic() + patience
    while (pids := marked(name, value)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
