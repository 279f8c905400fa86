"""Use file locks, not pids, to decide which supervisors and jobs are alive: pids are reused, and a zombie answers `kill -0`.

Locks lie on a local disk, because a home may be NFS and shared by several machines. Not in /run/user/UID: systemd removes
that folder at the user's last logout, under the feet of a supervisor that stays, and the next one would lock a new file
of the same name beside it. Files in /tmp are cleaned by age, so that a supervisor touches its own.
`GPURUN_LOCKS` names another folder than /tmp, for tests that make several hosts on one machine.

A lock file may be removed under its holder (`rm -rf /tmp/*`, a cleaner), or lie in another /tmp than the asker's (pam_namespace,
PrivateTmp). So every lock of this user has a second proof: an abstract Unix socket of the same name, which no file system
holds. Its holders inherit it in the same way, and it is gone when the last of them is. A lock is free when both are.

Two roots of one user, or two containers in one network namespace, may have runs of one id. So a socket's name has the mark of
the root that this process works for (`work_for`), and a lock file holds it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import struct
import time
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, List, Optional, Set, Tuple

from .. import machine
from ..paths import HostPaths
from .lock_folder import base_folder, first_choice, folder, is_it

__all__ = ["base_folder", "folder"]

_works_for: List[HostPaths] = []  # one at most


def work_for(host: HostPaths) -> None:
    """From now on this process, and all that it forks, works for the runs of this root."""
    machine.make_root_id(host)
    _works_for[:] = [host]


def _mark() -> str:
    """The mark of the root that this process works for; empty where there is none."""
    return machine.root_mark(_works_for[0]) if _works_for else ""


class Held:
    """A lock that this process holds until it is released or every holder of its descriptor is gone."""

    def __init__(self, path: str, fd: int):
        self.path = path
        self.fd = fd
        self.beacon = -1  # descriptor of the second proof

    @property
    def fds(self) -> List[int]:
        """What a process inherits that holds the lock too."""
        return [fd for fd in (self.fd, self.beacon) if fd >= 0]

    def stands(self) -> bool:
        """False when the file was removed or replaced: then somebody else may hold one of the same name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fd = self.beacon = -1


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
        try:
            if held.stands():  # else it was removed between our open and our lock
                if share and not _beacon_shines(path):
                    return held
                if not share and _light(held):
                    _sign(held)
                    return held
                if not wait:
                    held.release()
                    return None
                time.sleep(0.1)
        except BaseException:
            held.release()
            raise
        held.release()


def acquire_within(path: str, seconds: float) -> Optional[Held]:
    """Take the lock in `path` as soon as it is free; None when somebody still holds it after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        held = acquire(path)
        if held is not None or time.monotonic() > until:
            return held
        time.sleep(0.05)


_BEACON_TRIES = 5  # 10 ms each: our own process binds first and listens then


def _beacon_names(path: str) -> List[bytes]:
    """The abstract socket beside the lock in `path`, and that of an earlier gpurun; none for a lock that users share."""
    if not is_it(os.path.dirname(path)):
        return []
    name = os.fsencode(os.path.join(first_choice(), os.path.basename(path)))  # one, wherever the folder is
    told = [b"%s\0%s" % (_mark().encode(), name), name]
    return [b"\0gpurun-" + hashlib.sha256(one).hexdigest()[:40].encode() for one in told]


def _sign(held: Held) -> None:
    """Write down in the lock's file of which root its holder is (see `holders`)."""
    mark = _mark().encode()
    if _beacon_names(held.path) and os.pread(held.fd, len(mark) + 1, 0) != mark:
        with suppress(OSError):  # a full disk: it holds the lock all the same
            os.ftruncate(held.fd, 0)
            os.pwrite(held.fd, mark, 0)


def _light(held: Held) -> bool:
    """Bind the lock's beacon; False when another process of ours has it, so that the file was removed under that one.

    A kernel that has no such sockets, or a stranger who took the name, leaves the file as the only proof.
    """
    names = _beacon_names(held.path)
    if any(_owner_of(earlier) == os.getuid() for earlier in names[1:]):
        return False
    for name in names[:1] * _BEACON_TRIES:
        beacon = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            beacon.bind(name)
            beacon.listen(16)
        except OSError as error:
            beacon.close()
            if error.errno != errno.EADDRINUSE:
                return True
        else:
            held.beacon = beacon.detach()
            return True
        owner = _owner_of(name)
        if owner is not None:
            return owner != os.getuid()
        time.sleep(0.01)
    return True


def _beacon_shines(path: str) -> bool:
    """A process of ours holds the lock in `path`, whatever became of the file."""
    return any(_owner_of(name) == os.getuid() for name in _beacon_names(path))


def _owner_of(name: bytes) -> Optional[int]:
    """The user who listens on this abstract socket; None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(name)
            told = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", told)[1])
        except BlockingIOError:  # nobody takes the connections, so that its queue is full of askers
            return os.getuid() if _is_ours(name) else -1
        except OSError:
            return None


def _is_ours(name: bytes) -> bool:
    """A process of ours has this abstract socket open. True when that cannot be told."""
    shown = b"@" + name[1:]
    try:
        with open("/proc/net/unix", "rb") as file:
            inodes = [line.split()[6].decode() for line in file if line.split()[-1] == shown]
    except (OSError, IndexError):
        return True
    wanted = {"socket:[%s]" % inode for inode in inodes}
    return any(target in wanted for _, _, target in _open_files())


def holders(path: str) -> Set[int]:
    """Other processes of ours that hold the lock in `path`, though its file was removed, or lies in another /tmp. Slow."""
    found = set()
    name = os.path.relpath(path, os.path.dirname(os.path.dirname(path)))  # another /tmp may be shown by another path
    for pid, link, target in _open_files():
        if pid != os.getpid() and target.endswith(("/" + name, "/%s (deleted)" % name)):
            with suppress(OSError):
                if _locks(link) and not _is_of_another_root(link):
                    found.add(pid)
    return found


def _locks(link: str) -> bool:
    """The open file holds a lock: who only tries to take one has the file open too."""
    with open(link.replace("/fd/", "/fdinfo/"), encoding="ascii", errors="replace") as file:
        return any(line.startswith("lock:") for line in file)


def _is_of_another_root(link: str) -> bool:
    """The lock's file says so. An earlier gpurun has written nothing into it."""
    with open(link, "rb") as file:
        signed = file.read(64).decode("ascii", "replace")
    return bool(signed and _mark()) and signed != _mark()


def _open_files() -> "Iterator[Tuple[int, str, str]]":
    """(pid, link in /proc, what it leads to) of all open files that we may see."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            fds = "/proc/%s/fd" % name
            with suppress(OSError):  # another user's, or gone
                for fd in os.listdir(fds):
                    link = "%s/%s" % (fds, fd)
                    with suppress(OSError):
                        yield int(name), link, os.readlink(link)


def is_free(path: str) -> bool:
    """Nobody holds the lock in `path`. Asks with a shared lock, so that two askers do not see each other."""
    if not os.path.exists(path):
        return not _beacon_shines(path)
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


def end_hook_lock(run_id: str) -> str:
    """Held by the process that runs a run's `on_end`, from before its starter goes on until it is done."""
    return os.path.join(folder(), "hook-end-" + run_id)


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
