"""One lock for what gpurun keeps on this laptop: who reads, changes and writes a file there does so alone.

Held for milliseconds, never while a host is asked. The kernel lets go of it when its process ends, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpurun.errors import GpurunError

WAIT = 30.0  # seconds; a holder takes milliseconds, unless it was stopped (Ctrl-Z) in the middle

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
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _wait(fd, file)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _wait(fd: int, file: Path) -> None:
    """Take the lock of `fd` in turn, as the kernel gives it: who asks again and again is overtaken by a busy holder.

    A thread waits, because nothing else can leave the wait when it has lasted too long.
    """
    deciding, taken, given_up = threading.Lock(), threading.Event(), threading.Event()

    def wait() -> None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with deciding:
            if given_up.is_set():
                os.close(fd)
            else:
                taken.set()

    threading.Thread(target=wait, name="gpurun state lock", daemon=True).start()

    def give_up() -> bool:
        """True when the lock was not taken, and will be let go of as soon as it is."""
        with deciding:
            given_up.set()
            return not taken.is_set()

    try:
        came = taken.wait(WAIT)
    except BaseException:  # Ctrl-C
        if not give_up():
            os.close(fd)
        raise
    if not came and give_up():
        raise GpurunError(
            "another gpurun process has held the lock of this laptop's state for 30 seconds",
            "look for one that is suspended (Ctrl-Z): jobs, or ps -C gpurun",
            where=file,
        )
