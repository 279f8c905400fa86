"""A transfer that outlives its connection: rsync is run again after each drop, for as long as something moves.

What has come of a file that broke off is kept by rsync, so that each attempt goes on from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gpurun.errors import ContactLost
from gpurun.sync.rsync import Progress, transfer
from gpurun.sync.rsync_errors import Connection, check_local, explain

PATIENCE = 5  # attempts in a row that moved nothing
LONGEST_PAUSE = 10.0  # seconds


class Cancelled(Exception):
    """The transfer was not wanted any more: rsync was ended by TERM and keeps what it has."""


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files below `folder` have, which may be changing."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.lstat().st_size
    return found


def keep_on(
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
    """Run rsync `argv`, with `names` on its stdin, until it ends with a code of `accept`.

    `staged` returns the bytes that have come and are kept: rsync reports once a second, and a line may drop more often.
    Raises RsyncError, ContactLost after several attempts that moved nothing, and Cancelled once `cancelled` is set.
    """
    check_local()
    idle, most = 0, staged()
    while True:
        moved = [0]

        def report(seen: Progress, moved: list[int] = moved) -> None:
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            moved[0] = max(moved[0], seen.bytes)
            progress(seen)

        code, said = transfer(argv, names, report)
        if code in accept:
            return
        if cancelled is not None and cancelled.is_set():  # Ctrl-C reached rsync too
            raise Cancelled
        failure = explain(connection, code, said)
        came = staged()
        idle = 0 if moved[0] or came > most else idle + 1
        most = max(most, came)
        if not isinstance(failure, ContactLost) or idle >= PATIENCE:
            raise failure
        dropped()
        (sleep or time.sleep)(min(0.5 * 2.0**idle, LONGEST_PAUSE))
