"""Copy the event files of a project's runs into a folder for its TensorBoard.

A container sees only what was mounted when it was made, and runs start later. So the supervisor keeps a folder for each
run in the service's `board/`, with copies of what its job logged, and appends new data. Hard links would avoid the
copy, but each link changes its file's ctime, by which a fetch detects that a file was written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Dict, Iterator, Optional, Set

from .. import vocabulary as words
from ..file_names import CACHES, matches
from ..paths import RunPaths
from ..state import jobs

if TYPE_CHECKING:
    from ..schema.job import Job

LOOK_EVERY = 2.0  # seconds between two updates, or ten times what the last update took
ENDED_EVERY = 60.0  # seconds between two updates of an ended run: somebody may have a shell in it
EVENTS = ("*tfevents*",)
SHOWN = (*EVENTS, "projector_config.pbtxt", "*.tsv")
_PLUGINS = b"plugins"  # a folder beside event files, where TensorBoard's plugins store their files
_LEFT_OUT = CACHES | {words.WORKSPACE_PRIVATE.encode(), b".git"}
_BLOCK = 1 << 20
_LITTLE = 512 << 20  # bytes that stay free on a host's disk


@contextmanager
def kept(run: RunPaths, job: Job) -> Iterator[None]:
    """Keep the board of a TensorBoard up to date in a thread while the block runs. Do nothing for other runs."""
    service = job.get("service")
    if service is None or service["kind"] != words.TENSORBOARD:
        yield
        return
    over, board = threading.Event(), Board(run, job["project"]["name"], service.get("run"))
    thread = threading.Thread(target=_keep, args=(board, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if os.path.exists(run.exit):  # an update that was running may have copied again what the end has cleared
            clear(run)


def _keep(board: Board, over: threading.Event) -> None:
    wait, last_error = 0.0, ""
    while not over.wait(wait):
        began = time.monotonic()
        try:
            board.refresh()
        except Exception as error:  # noqa: BLE001 (a full disk, say: the service stays, and the next look may do)
            if last_error != repr(error):  # do not fill the supervisor's log with the same error
                last_error = repr(error)
                traceback.print_exc()
        wait = max(LOOK_EVERY, 10 * (time.monotonic() - began))


def clear(run: RunPaths) -> None:
    """Remove the copies. The folder stays: it is mounted."""
    for name in os.listdir(run.board) if os.path.isdir(run.board) else []:
        shutil.rmtree(os.path.join(run.board, name), ignore_errors=True)


class Board:
    """Hold one TensorBoard's folder: for the run `only`, or for all runs of the project except its own TensorBoards."""

    def __init__(self, run: RunPaths, project_name: str, only: Optional[str] = None):
        self.folder, self.host = run.board, run.host
        self.project_name, self.only = project_name, only
        self._belongs: Dict[str, bool] = {}  # by run: the job of a run never changes
        self._looked: Dict[str, float] = {}  # runs that have ended, and when they were last updated
        self._inodes: Dict[bytes, int] = {}  # inodes of the files that were copied

    def refresh(self) -> None:
        """Update the folder: add new runs and files, and remove what is gone."""
        os.makedirs(self.folder, exist_ok=True)
        wanted = {run.id: run for run in self._wanted()}
        for name in os.listdir(self.folder):
            if name not in wanted:
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
        for run in wanted.values():
            ended, now = os.path.exists(run.exit), time.monotonic()
            if ended and now < self._looked.get(run.id, -ENDED_EVERY) + ENDED_EVERY:
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # it has no workspace yet, or no longer
                self._show(run)
            if ended:
                self._looked[run.id] = now
            else:
                self._looked.pop(run.id, None)

    def _wanted(self) -> Iterator[RunPaths]:
        if self.only is not None:
            run = self.host.run(self.only)
            if os.path.isdir(run.root):
                yield run
            return
        for run in self.host.all_runs():
            if run.id not in self._belongs:
                try:
                    job = jobs.read(run)
                except OSError:  # an unreadable run does not stop the board
                    continue
                if not isinstance(job, dict):  # it is being made or removed
                    continue
                service, project = job.get("service"), job.get("project")
                is_board = service is not None and service["kind"] == words.TENSORBOARD
                self._belongs[run.id] = project is not None and project["name"] == self.project_name and not is_board
            if self._belongs[run.id]:
                yield run

    def _show(self, run: RunPaths) -> None:
        target = os.fsencode(os.path.join(self.folder, run.id))
        copies: Set[bytes] = set()
        top = os.fsencode(run.workspace)
        for folder, folders, names, fd in os.fwalk(top):  # by descriptors: a job may replace a folder by a link
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
            inside = os.path.relpath(folder, top)
            everything = _PLUGINS in inside.split(b"/")
            for name in names:
                if everything or matches(name, SHOWN):
                    copy = os.path.normpath(os.path.join(target, inside, name))
                    with suppress(OSError):  # it is gone, or another user's: the other files are copied
                        self._update_copy(fd, name, copy)
                    copies.add(copy)
        self._remove_others(target, copies)

    def _update_copy(self, fd: int, name: bytes, there: bytes) -> None:
        """Update the copy at `there` from a file of the workspace. Programs only append to an event file."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(name, flags, dir_fd=fd), "rb") as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                return
            os.makedirs(os.path.dirname(there), exist_ok=True)
            with open(there, "ab") as copy:
                copy_status = os.fstat(copy.fileno())
                same = self._inodes.setdefault(there, status.st_ino) == status.st_ino
                if not matches(name, EVENTS):
                    same = same and (copy_status.st_size, int(copy_status.st_mtime)) == (
                        status.st_size,
                        int(status.st_mtime),
                    )
                self._inodes[there] = status.st_ino
                if not same or status.st_size < copy_status.st_size:
                    copy.truncate(0)
                    source.seek(0)
                else:
                    source.seek(copy_status.st_size)
                if status.st_size > source.tell():
                    self._refuse_when_full(status.st_size - source.tell())
                    shutil.copyfileobj(source, copy, _BLOCK)
            os.utime(there, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def _refuse_when_full(self, size: int) -> None:
        if shutil.disk_usage(self.folder).free < size + _LITTLE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.folder)

    def _remove_others(self, target: bytes, copies: Set[bytes]) -> None:
        for folder, _, names in os.walk(target, topdown=False):
            for name in names:
                path = os.path.join(folder, name)
                if path not in copies:
                    os.unlink(path)
                    self._inodes.pop(path, None)
            if not os.listdir(folder):
                os.rmdir(folder)
