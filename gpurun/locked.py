"""One lock for what gpurun keeps on this laptop: who reads, changes and writes a file there does so alone.

Held for milliseconds, never while a host is asked. The kernel lets go of it when its process ends, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpurun.errors import GpurunError

WAIT = 30.0  # seconds; a holder takes milliseconds, unless it was stopped (Ctrl-Z) in the middle
_TRY_EVERY = 0.005

_held = threading.local()
_trouble: list[OSError] = []


@contextmanager
def state() -> Iterator[None]:
    """Hold the lock of this laptop's state, again if this thread holds it already. Raises GpurunError after 30 s."""
    if getattr(_held, "depth", 0):
        _held.depth += 1
        try:
            yield
        finally:
            _held.depth -= 1
        return
    fd = _take(path())
    _held.depth = 1
    try:
        yield
    finally:
        _held.depth = 0
        os.close(fd)


@contextmanager
def if_it_can() -> Iterator[None]:
    """Keep what a host can tell again: a disk that is full, read-only or another's is noted (`trouble`) and stops nothing."""
    try:
        yield
    except OSError as error:
        note_trouble(error)


def note_trouble(error: OSError) -> None:
    """Keep the first failure to read or write this laptop's state, to be shown once."""
    _trouble.append(error)
    del _trouble[1:]


def trouble() -> OSError | None:
    """Return the first failure that was noted, once."""
    return _trouble.pop() if _trouble else None


def path() -> Path:
    """The lock file. Never removed: two processes would lock two files of one name."""
    import platformdirs

    return platformdirs.user_data_path("gpurun") / "lock"


def _take(file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(fd)
                raise GpurunError(
                    "another gpurun process has held the lock of this laptop's state for 30 seconds",
                    "look for one that is suspended (Ctrl-Z): jobs, or ps -C gpurun",
                    where=str(file),
                ) from None
        except BaseException:
            os.close(fd)
            raise
        time.sleep(_TRY_EVERY)
