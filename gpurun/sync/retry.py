"""Retry a transfer after each lost connection, as long as bytes arrive.

rsync keeps the received part of an incomplete file, so that each attempt resumes from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gpurun.errors import ContactLost
from gpurun.sync.rsync import Progress, run_rsync
from gpurun.sync.rsync_errors import Connection, check_local, error_of

MAX_IDLE_ATTEMPTS = 5  # attempts in a row that transferred nothing
MAX_PAUSE = 10.0  # seconds


class Cancelled(Exception):
    """The transfer was cancelled: rsync was ended by TERM and keeps what it has received."""


def bytes_in(folder: Path) -> int:
    """Return the total size of the files below `folder`, which may be changing."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_size
    return size


def run_with_retries(
    connection: Connection,
    argv: Sequence[str],
    names: bytes,
    progress: Callable[[Progress], None],
    *,
    dropped: Callable[[], None] = lambda: None,
    cancelled: threading.Event | None = None,
    accept: Sequence[int] = (0,),
    staged: Callable[[], int] = lambda: 0,
    sleep: Callable[[float], None] | None = None,
) -> None:
    """Run rsync `argv`, with `names` on its stdin, until its exit code is one of `accept`. Call `dropped` before each retry.

    `staged` returns the number of bytes that were received and kept: rsync reports progress only once a second, and a
    connection may drop more often. Raises RsyncError, ContactLost after several attempts that transferred nothing, and
    Cancelled once `cancelled` is set.
    """
    check_local()
    idle, most = 0, staged()
    while True:
        transferred = [0]

        def report(now: Progress, transferred: list[int] = transferred) -> None:
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            transferred[0] = max(transferred[0], now.bytes)
            progress(now)

        code, stderr = run_rsync(argv, names, report)
        if code in accept:
            return
        if cancelled is not None and cancelled.is_set():  # Ctrl-C reached rsync too
            raise Cancelled
        failure = error_of(connection, code, stderr)
        received = staged()
        idle = 0 if transferred[0] or received > most else idle + 1
        most = max(most, received)
        if not isinstance(failure, ContactLost) or idle >= MAX_IDLE_ATTEMPTS:
            raise failure
        dropped()
        (sleep or time.sleep)(min(0.5 * 2.0**idle, MAX_PAUSE))
