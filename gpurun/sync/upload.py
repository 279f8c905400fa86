"""Send the files of a project into a snapshot on a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpurun.job.files import FileList
from gpurun.sync import rsync
from gpurun.sync.retry import run_with_retries
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
    """Send what `files` lists into the host's folder `snapshot`. The host checks the result by the manifest.

    Raises RsyncError, ContactLost.
    """
    check_local()
    argv = rsync.push_argv(connection, files.root, snapshot, link_dest, compress=rsync.is_compressible(files))
    names = rsync.file_list(entry.path for entry in files.entries)

    def report(now: Progress) -> None:
        if progress is not None:
            progress(now)

    # 24: files disappeared during the transfer. The host's check notices that, and the list is made again.
    accept = (0, 24)
    try:
        run_with_retries(connection, argv, names, report, accept=accept)
    except RsyncError as error:
        if error.meaning != PARTIAL:
            raise
        # rsync 3.2.7 may fail on the partial file of an interrupted run, so send that file from its beginning.
        fresh = [f"{word}.anew" if word.startswith("--partial-dir=") else word for word in argv]
        run_with_retries(connection, fresh, names, report, accept=accept)
