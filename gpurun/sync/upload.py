"""Sending a list of a project's files into a snapshot on a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpurun.job.files import FileList
from gpurun.sync import rsync
from gpurun.sync.retry import keep_on
from gpurun.sync.rsync import Progress
from gpurun.sync.rsync_errors import PARTIAL, Connection, RsyncError, check_local


def push(
    connection: Connection,
    files: FileList,
    snapshot: str,
    link_dest: Sequence[str] = (),
    *,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Make the host's folder `snapshot` hold what `files` lists. Whether it does is for the host to check (manifest).

    Raises RsyncError, ContactLost.
    """
    check_local()
    argv = rsync.push_argv(connection, files.root, snapshot, link_dest, compress=rsync.shrinks(files))
    names = rsync.listed(entry.path for entry in files.entries)

    def report(seen: Progress) -> None:
        if progress is not None:
            progress(seen)

    # 24: files vanished under rsync's hands. The host's check tells, and the list is made again.
    accept = (0, 24)
    try:
        keep_on(connection, argv, names, report, accept=accept)
    except RsyncError as error:
        if error.meaning != PARTIAL:
            raise
        # rsync 3.2.7 may not get over what an interrupted run has left of a file: it is sent from its beginning.
        anew = [f"{word}.anew" if word.startswith("--partial-dir=") else word for word in argv]
        keep_on(connection, anew, names, report, accept=accept)
