"""What a TensorBoard is shown: the event files of the runs of its project, in a folder of its own.

A container sees what was mounted when it was made, and runs come later. So the supervisor keeps in the service's `board/` a
folder for each run, with copies of what its job logged, to which it appends what came. Hard links would save the copy, but each
changes its file's ctime, by which a fetch sees that a file was written.
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

LOOK_EVERY = 2.0  # seconds between two looks, or ten times what the last one took
ENDED_EVERY = 60.0  # seconds between two looks at a run that has ended: somebody may have a shell in it
EVENTS = ("*tfevents*",)
SHOWN = (*EVENTS, "projector_config.pbtxt", "*.tsv")
_PLUGINS = b"plugins"  # a folder beside event files, in which TensorBoard's plugins find their own
_LEFT_OUT = CACHES | {words.WORKSPACE_PRIVATE.encode(), b".git"}
_BLOCK = 1 << 20
_LITTLE = 512 << 20  # bytes that are left free on a host's disk


@contextmanager
def kept(run: RunPaths, job: Job) -> Iterator[None]:
    """Keep the board of a TensorBoard up to date in a thread while the block runs; nothing for other runs."""
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
        if os.path.exists(run.exit):  # a look that was under way has shown again what the end has cleared
            clear(run)


def _keep(board: Board, over: threading.Event) -> None:
    wait, told = 0.0, ""
    while not over.wait(wait):
        began = time.monotonic()
        try:
            board.refresh()
        except Exception as error:  # noqa: BLE001 (a full disk, say: the service stays, and the next look may do)
            if told != repr(error):  # the supervisor's log is not filled with it
                told = repr(error)
                traceback.print_exc()
        wait = max(LOOK_EVERY, 10 * (time.monotonic() - began))


def clear(run: RunPaths) -> None:
    """Remove what was shown. The folder stays: it is mounted."""
    for name in os.listdir(run.board) if os.path.isdir(run.board) else []:
        shutil.rmtree(os.path.join(run.board, name), ignore_errors=True)


class Board:
    """One TensorBoard's folder: that of the run `only`, or of all runs of the project but its own TensorBoards."""

    def __init__(self, run: RunPaths, project_name: str, only: Optional[str] = None):
        self.folder, self.host = run.board, run.host
        self.project_name, self.only = project_name, only
        self._belongs: Dict[str, bool] = {}  # by run: its job never changes
        self._looked: Dict[str, float] = {}  # runs that have ended, and when they were looked at
        self._inodes: Dict[bytes, int] = {}  # of the files that were copied

    def refresh(self) -> None:
        """Bring the folder up to date: runs that came, files that came, and what is gone."""
        os.makedirs(self.folder, exist_ok=True)
        wanted = {run.id: run for run in self._wanted()}
        for name in os.listdir(self.folder):
            if name not in wanted:
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
        for run in wanted.values():
            ended, now = os.path.exists(run.exit), time.monotonic()
            if ended and now < self._looked.get(run.id, -ENDED_EVERY) + ENDED_EVERY:
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # it has no workspace yet, or none any more
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
                except OSError:  # one that cannot be read takes no board along
                    continue
                if not isinstance(job, dict):  # it is being made, or removed
                    continue
                service, project = job.get("service"), job.get("project")
                is_board = service is not None and service["kind"] == words.TENSORBOARD
                self._belongs[run.id] = project is not None and project["name"] == self.project_name and not is_board
            if self._belongs[run.id]:
                yield run

    def _show(self, run: RunPaths) -> None:
        target = os.fsencode(os.path.join(self.folder, run.id))
        seen: Set[bytes] = set()
        top = os.fsencode(run.workspace)
        for folder, folders, names, fd in os.fwalk(top):  # by descriptors: a job may put a link in a folder's place
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
            inside = os.path.relpath(folder, top)
            everything = _PLUGINS in inside.split(b"/")
            for name in names:
                if everything or matches(name, SHOWN):
                    there = os.path.normpath(os.path.join(target, inside, name))
                    with suppress(OSError):  # it went, or is another's: the others are shown
                        self._bring(fd, name, there)
                    seen.add(there)
        self._remove_others(target, seen)

    def _bring(self, fd: int, name: bytes, there: bytes) -> None:
        """Bring the copy `there` up to date with a file of the workspace's. An event file is only ever appended to."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(name, flags, dir_fd=fd), "rb") as source:
            found = os.fstat(source.fileno())
            if not stat.S_ISREG(found.st_mode):
                return
            os.makedirs(os.path.dirname(there), exist_ok=True)
            with open(there, "ab") as copy:
                known = os.fstat(copy.fileno())
                same = self._inodes.setdefault(there, found.st_ino) == found.st_ino
                if not matches(name, EVENTS):
                    same = same and (known.st_size, int(known.st_mtime)) == (found.st_size, int(found.st_mtime))
                self._inodes[there] = found.st_ino
                if not same or found.st_size < known.st_size:
                    copy.truncate(0)
                    source.seek(0)
                else:
                    source.seek(known.st_size)
                if found.st_size > source.tell():
                    self._refuse_when_full(found.st_size - source.tell())
                    shutil.copyfileobj(source, copy, _BLOCK)
            os.utime(there, ns=(found.st_mtime_ns, found.st_mtime_ns))

    def _refuse_when_full(self, size: int) -> None:
        if shutil.disk_usage(self.folder).free < size + _LITTLE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.folder)

    def _remove_others(self, target: bytes, seen: Set[bytes]) -> None:
        for folder, _, names in os.walk(target, topdown=False):
            for name in names:
                path = os.path.join(folder, name)
                if path not in seen:
                    os.unlink(path)
                    self._inodes.pop(path, None)
            if not os.listdir(folder):
                os.rmdir(folder)
