"""The folder of tickets and GPU locks that all users of the host share. Nothing in there is trusted, followed or waited for.

Any account can make, lock and fill files here, and can make the folder before us. So a file is opened without following a
link and without waiting for a pipe, it counts only as a regular file of one name, what it says counts only for the
account that owns it, and nothing is ever written to a file that was there before.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import Iterator, Optional

from .. import error_codes
from ..errors import AgentError
from ..host import locks

QUEUE = "queue"
FOR_ALL = 0o1777  # of a folder: everybody makes files in it, and removes their own alone
NEW = ".new-"  # what the names of half-made files begin with
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Odd(Exception):
    """A file in the folder that cannot be used. `what` says which, whose it is, and why."""

    def __init__(self, what: str):
        super().__init__(what)
        self.what = what


def path(*within: str) -> str:
    return os.path.join(locks.base_folder(), "gpurun-gpus", *within)


@contextmanager
def opened(within: Optional[str] = None) -> Iterator[int]:
    """A descriptor of the folder, or of the one `within` it, made if it is not there.

    Raises AgentError `queue` when another account has made something of the name that cannot be used, and for every error
    of the file system while it is open.
    """
    try:
        fd = _open(within)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        what = "%s cannot be used: %s" % (path(*filter(None, [within])), os.strerror(error.errno or 0))
        raise AgentError(error_codes.QUEUE, what, "look at that folder on the host", where=path()) from error


def look(folder: int, name: str, place: str, owner: Optional[int] = None) -> int:
    """Open a file of the folder for reading; its owner must be `owner`, if one is given. Raises Odd, FileNotFoundError."""
    try:
        fd = os.open(name, _LOOK, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Odd(_odd(folder, name, place, os.strerror(error.errno or 0).lower())) from None
    found = os.fstat(fd)
    why = None
    if not stat.S_ISREG(found.st_mode):
        why = "no regular file"
    elif found.st_nlink > 1:
        why = "a second name of another file"
    elif owner is not None and found.st_uid != owner:
        why = "not a file of %s" % account(owner)
    if why is not None:
        os.close(fd)
        raise Odd(_odd(folder, name, place, why))
    return fd


def try_lock(folder: int, name: str, place: str) -> Optional[locks.Held]:
    """The lock of a file that all accounts use, made if it is not there; None when it is held. Raises Odd."""
    while True:
        try:
            fd = look(folder, name, place)
        except FileNotFoundError:
            try:
                # For all to write: an agent of an older gpurun opens it for writing. Nobody reads what is in it.
                fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            except FileExistsError:
                continue
            os.fchmod(fd, 0o666)  # past the umask
        if not _flock(fd, fcntl.LOCK_EX):
            os.close(fd)
            return None
        if is_named(folder, name, fd):  # else it was removed between our open and our lock
            return locks.Held(place, fd)
        os.close(fd)


def is_held(fd: int) -> bool:
    """Whether somebody holds the lock of this open file. Asks with a shared lock, and lets it go at once."""
    if not _flock(fd, fcntl.LOCK_SH):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def put(folder: int, name: str, place: str, content: bytes = b"") -> locks.Held:
    """Make a file of ours that bears our lock from its first moment, in the place of an earlier one of ours.

    Whoever else has locked an earlier one holds nothing by it. Raises Odd when another account has a file of that name.
    """
    new = "%s%d-%s" % (NEW, os.getuid(), secrets.token_hex(6))
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, content)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
        return locks.Held(place, fd)
    except OSError as error:
        os.close(fd)
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        if error.errno in (errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTEMPTY):
            raise Odd(_odd(folder, name, place, "in the place of a file of ours", tell_kind=False)) from None
        raise


def read_small(fd: int) -> bytes:
    """The beginning of an open file, which may be of any size."""
    return os.pread(fd, 4096, 0)


def is_named(folder: int, name: str, fd: int) -> bool:
    """Whether the open file still is the one of that name."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "uid %d" % uid


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _open(within: Optional[str]) -> int:
    top = _open_folder(None, path(), path())
    if top is None:
        _make()
        top = _open_folder(None, path(), path())
    if top is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if within is None:
        return top
    try:
        inner = _open_folder(top, within, path(within))
        if inner is None:
            with suppress(FileExistsError):
                os.mkdir(within, 0o700, dir_fd=top)  # until it is for all, which is the next step
            inner = _open_folder(top, within, path(within))
        if inner is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return inner
    finally:
        os.close(top)


def _open_folder(parent: Optional[int], name: str, place: str) -> Optional[int]:
    """None when there is none. One of ours that is not for all (we died while we made it) becomes so."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        raise _closed(parent, name, place, found) from error
    try:
        found = os.fstat(fd)
        if stat.S_IMODE(found.st_mode) & FOR_ALL == FOR_ALL:
            return fd
        if found.st_uid == os.getuid():
            os.fchmod(fd, FOR_ALL)
            return fd
        raise _closed(parent, name, place, found)
    except BaseException:
        os.close(fd)
        raise


def _make() -> None:
    """The folder appears whole: whoever is killed meanwhile leaves none that is closed to others."""
    new = tempfile.mkdtemp(prefix="gpurun-gpus.", dir=locks.base_folder())
    try:
        os.mkdir(os.path.join(new, QUEUE))
        os.chmod(os.path.join(new, QUEUE), FOR_ALL)
        os.chmod(new, FOR_ALL)
        os.rename(new, path())
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if not os.path.lexists(path()):
            raise


def _closed(parent: Optional[int], name: str, place: str, found: os.stat_result) -> AgentError:
    is_folder = stat.S_ISDIR(found.st_mode)
    why = "its mode is %04o" % stat.S_IMODE(found.st_mode) if is_folder else "no folder"
    what = "the folder of the GPU queue cannot be used: " + _odd(parent, name, place, why, tell_kind=not is_folder)
    return AgentError(
        error_codes.QUEUE, what, "let its owner or root run: chmod 1777 %s, or remove it" % place, where=place
    )


def _odd(folder: Optional[int], name: str, place: str, why: str, *, tell_kind: bool = True) -> str:
    """Which file, whose it is, and what is wrong with it: with `tell_kind`, what it is when that is no regular file."""
    shown = ascii(place)[1:-1]  # a name that others chose reaches a terminal
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return "%s: %s" % (shown, why)
    is_a = _KINDS.get(stat.S_IFMT(found.st_mode)) if tell_kind else None
    return "%s of %s: %s" % (shown, account(found.st_uid), is_a or why)
