"""Who is alive is told by locks, never by pids: pids are used again, and a zombie answers `kill -0`.

Locks lie on a local disk, because a home may be NFS and shared by several machines. Not in /run/user/UID: systemd removes
that folder at the user's last logout, under the feet of a supervisor that stays, and the next one would lock a new file
of the same name beside it. Files in /tmp are cleaned by age, so that a supervisor touches its own.
`GPURUN_LOCKS` names another folder than /tmp, for tests that make several hosts on one machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Optional

from .errors import AgentError


def base_folder() -> str:
    return os.environ.get("GPURUN_LOCKS", "/tmp")  # noqa: S108


def folder() -> str:
    """This user's locks: 0700 and ours, or nothing works (somebody else could hold or free them)."""
    path = os.path.join(base_folder(), "gpurun-%d" % os.getuid())
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
            raise AgentError(
                "locks", "the folder of gpurun's locks belongs to somebody else", "remove " + path, where=path
            ) from None
    return path


class Held:
    """A lock that this process holds until it is released or every holder of its descriptor is gone."""

    def __init__(self, path: str, fd: int):
        self.path = path
        self.fd = fd

    def stands(self) -> bool:
        """False when the file was removed or replaced: then somebody else may hold one of the same name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def acquire(path: str, *, wait: bool = False, mode: int = 0o600, share: bool = False) -> Optional[Held]:
    """Take the lock in `path`; None when somebody holds it and `wait` is false."""
    while True:
        fd = open_lock(path, mode)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if share else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        held = Held(path, fd)
        if held.stands():  # else it was removed between our open and our lock
            return held
        held.release()


def is_free(path: str) -> bool:
    """Nobody holds the lock in `path`. Asks with a shared lock, so that two askers do not see each other."""
    if not os.path.exists(path):
        return True
    held = acquire(path, share=True)
    if held is None:
        return False
    held.release()
    return True


def open_lock(path: str, mode: int) -> int:
    """Open, or make. In a sticky folder for all, the kernel refuses O_CREAT on a file of somebody else's."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        os.fchmod(fd, mode)  # past the umask
        return fd


def run_lock(run_id: str) -> str:
    """Held by the run's supervisor for its whole life."""
    return os.path.join(folder(), "run-" + run_id)


def job_lock(run_id: str) -> str:
    """Held by every process of a `bare` job (they inherit it): free only when the whole job is gone."""
    return os.path.join(folder(), "job-" + run_id)


def hook_lock(run_id: str) -> str:
    """Held by the process that runs a hook of this run."""
    return os.path.join(folder(), "hook-" + run_id)


def hooks_running(run_id: str) -> str:
    """Shared by every process that runs a hook of this run, or waits for its turn."""
    return os.path.join(folder(), "hook-" + run_id + ".running")


def gather_lock(run_id: str) -> str:
    """Held by whoever copies what the run's container alone holds."""
    return os.path.join(folder(), "gather-" + run_id)


@contextmanager
def host_lock(name: str, meanwhile: Optional[Callable[[], None]] = None) -> Iterator[None]:
    """Only one process of this user does `name` at a time; the others wait, and call `meanwhile`, which may raise."""
    path = os.path.join(folder(), "host-" + name)
    held = acquire(path, wait=meanwhile is None)
    while held is None:
        if meanwhile is not None:
            meanwhile()
        time.sleep(0.5)
        held = acquire(path)
    try:
        yield
    finally:
        held.release()
