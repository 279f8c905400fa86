"""Use file locks, not pids, to decide which supervisors and jobs are alive: pids are reused, and a zombie answers `kill
-0`.

Locks are on a local disk, because a home may be NFS and shared by several hosts. They are not in /run/user/UID: systemd
removes that folder at the user's last logout while a supervisor still uses it, and the next supervisor would lock a new
file of the same name. Cleaners remove old files in /tmp, so a supervisor touches its lock files. `GPURUN_LOCKS` names
another folder than /tmp, for tests that make several hosts on one machine.

A lock file may be removed while it is held (`rm -rf /tmp/*`, a cleaner), or be in another /tmp than the process that
checks it (pam_namespace, PrivateTmp). So every lock of this user has a second proof: an abstract Unix socket of the
same name, which is on no file system. The processes that hold the lock inherit the socket in the same way, and it
disappears with the last of them. A lock is free when both are free.

Two roots of one user, or two containers in one network namespace, may have runs of one id. So a socket's name contains
the mark of the root that this process works for (`work_for`), and the lock file contains it too.
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
    """Make this process, and all that it forks from now on, work for the runs of this root."""
    machine.make_root_id(host)
    _works_for[:] = [host]


def _mark() -> str:
    """Return the mark of the root that this process works for; empty without a root."""
    return machine.root_mark(_works_for[0]) if _works_for else ""


class Held:
    """Hold a lock until it is released or until every process that has its descriptor is gone."""

    def __init__(self, path: str, fd: int):
        self.path = path
        self.fd = fd
        self.beacon = -1  # descriptor of the second proof

    @property
    def fds(self) -> List[int]:
        """Return the descriptors that a process inherits to hold the lock too."""
        return [fd for fd in (self.fd, self.beacon) if fd >= 0]

    def is_intact(self) -> bool:
        """Return False when the file was removed or replaced: then another process may hold a lock of the same name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fd = self.beacon = -1


def acquire(path: str, *, wait: bool = False, mode: int = 0o600, share: bool = False) -> Optional[Held]:
    """Take the lock in `path`. Return None when it is held and `wait` is false."""
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
            if held.is_intact():  # else the file was removed between our open and our lock
                if share and not _is_beacon_lit(path):
                    return held
                if not share and _light_beacon(held):
                    _write_mark(held)
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
    """Take the lock in `path` as soon as it is free. Return None when it is still held after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        held = acquire(path)
        if held is not None or time.monotonic() > until:
            return held
        time.sleep(0.05)


_BEACON_TRIES = 5  # 10 ms each: our own process binds first and listens then


def _beacon_names(path: str) -> List[bytes]:
    """Return the names of the abstract socket beside the lock in `path` and of the socket of an earlier gpurun.

    Empty for a lock that several users share.
    """
    if not is_it(os.path.dirname(path)):
        return []
    name = os.fsencode(os.path.join(first_choice(), os.path.basename(path)))  # the same in both folders
    sources = [b"%s\0%s" % (_mark().encode(), name), name]
    return [b"\0gpurun-" + hashlib.sha256(source).hexdigest()[:40].encode() for source in sources]


def _write_mark(held: Held) -> None:
    """Write into the lock's file which root its holder works for (see `holders`)."""
    mark = _mark().encode()
    if _beacon_names(held.path) and os.pread(held.fd, len(mark) + 1, 0) != mark:
        with suppress(OSError):  # a full disk: the lock is held all the same
            os.ftruncate(held.fd, 0)
            os.pwrite(held.fd, mark, 0)


def _light_beacon(held: Held) -> bool:
    """Bind the lock's beacon.

    Return False when another process of this user has it: then the file was removed while that process holds it.

    When the kernel has no such sockets, or another account took the name, the file is the only proof.
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


def _is_beacon_lit(path: str) -> bool:
    """Return whether a process of this user holds the lock in `path`, even when the file was removed."""
    return any(_owner_of(name) == os.getuid() for name in _beacon_names(path))


def _owner_of(name: bytes) -> Optional[int]:
    """Return the user who listens on this abstract socket, or None."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(name)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[1])
        except BlockingIOError:  # nobody accepts the connections, so the socket's queue is full
            return os.getuid() if _is_ours(name) else -1
        except OSError:
            return None


def _is_ours(name: bytes) -> bool:
    """Return whether a process of this user has this abstract socket open. True when that is unknown."""
    shown = b"@" + name[1:]
    try:
        with open("/proc/net/unix", "rb") as file:
            inodes = [line.split()[6].decode() for line in file if line.split()[-1] == shown]
    except (OSError, IndexError):
        return True
    wanted = {"socket:[%s]" % inode for inode in inodes}
    return any(target in wanted for _, _, target in _open_files())


def holders(path: str) -> Set[int]:
    """Return the other processes of this user that hold the lock in `path`, even when its file was removed or is in another
    /tmp. Slow.
    """
    pids = set()
    name = os.path.relpath(path, os.path.dirname(os.path.dirname(path)))  # another /tmp may have another path here
    for pid, link, target in _open_files():
        if pid != os.getpid() and target.endswith(("/" + name, "/%s (deleted)" % name)):
            with suppress(OSError):
                if _holds_lock(link) and not _is_of_another_root(link):
                    pids.add(pid)
    return pids


def _holds_lock(link: str) -> bool:
    """Return whether the open file holds a lock: a process that only tries to take it has the file open too."""
    with open(link.replace("/fd/", "/fdinfo/"), encoding="ascii", errors="replace") as file:
        return any(line.startswith("lock:") for line in file)


def _is_of_another_root(link: str) -> bool:
    """Return whether the lock's file names another root. An earlier gpurun has written nothing into the file."""
    with open(link, "rb") as file:
        mark = file.read(64).decode("ascii", "replace")
    return bool(mark and _mark()) and mark != _mark()


def _open_files() -> "Iterator[Tuple[int, str, str]]":
    """Yield (pid, link in /proc, target of the link) of all open files that this user may see."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            fds = "/proc/%s/fd" % name
            with suppress(OSError):  # another user's, or gone
                for fd in os.listdir(fds):
                    link = "%s/%s" % (fds, fd)
                    with suppress(OSError):
                        yield int(name), link, os.readlink(link)


def is_free(path: str) -> bool:
    """Return whether nobody holds the lock in `path`.

    Asks with a shared lock, so that two checks do not see each other.
    """
    if not os.path.exists(path):
        return not _is_beacon_lit(path)
    held = acquire(path, share=True)
    if held is None:
        return False
    held.release()
    return True


def open_lock(path: str, mode: int) -> int:
    """Open or make a lock file.

    In a sticky folder that all may write to, the kernel refuses O_CREAT on a file of another account.
    """
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        os.fchmod(fd, mode)  # despite the umask
        return fd


def run_lock(run_id: str) -> str:
    """Return the lock that the run's supervisor holds for its whole life."""
    return os.path.join(folder(), "run-" + run_id)


def job_lock(run_id: str) -> str:
    """Return the lock that every process of a `bare` job holds (they inherit it): free only when the whole job is gone."""
    return os.path.join(folder(), "job-" + run_id)


def hook_lock(run_id: str) -> str:
    """Return the lock that the process of a hook of this run holds."""
    return os.path.join(folder(), "hook-" + run_id)


def hooks_running(run_id: str) -> str:
    """Return the lock that is shared by every process that runs a hook of this run, or waits for its turn."""
    return os.path.join(folder(), "hook-" + run_id + ".running")


def gather_lock(run_id: str) -> str:
    """Return the lock that a process holds while it copies files that only the run's container has."""
    return os.path.join(folder(), "gather-" + run_id)


def end_hook_lock(run_id: str) -> str:
    """Return the lock that the process of a run's `on_end` holds, from before its starter continues until it is done."""
    return os.path.join(folder(), "hook-end-" + run_id)


@contextmanager
def host_lock(name: str, meanwhile: Optional[Callable[[], None]] = None) -> Iterator[None]:
    """Run the block while no other process of this user does `name`.

    The others wait and call `meanwhile`, which may raise.
    """
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
