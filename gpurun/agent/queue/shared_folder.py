"""Use the folder of tickets and GPU locks that all users of the host share.

Nothing in it is trusted, followed or waited for.

Any account can make, lock and fill files here, and can make the folder before gpurun does. So gpurun opens a file
without following a link and without waiting for a pipe. A file counts only when it is a regular file with one name, its
content counts only for the account that owns the file, and gpurun never writes to a file that already exists.
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
FOR_ALL = 0o1777  # mode of a folder: everybody makes files in it, and can remove only their own
NEW = ".new-"  # prefix of the names of unfinished files
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
    """Report a file in the folder that cannot be used. `what` names the file, its owner and the reason."""

    def __init__(self, what: str):
        super().__init__(what)
        self.what = what


def path(*within: str) -> str:
    return os.path.join(locks.base_folder(), "gpurun-gpus", *within)


@contextmanager
def opened(within: Optional[str] = None) -> Iterator[int]:
    """Yield a descriptor of the folder, or of its subfolder `within`. A missing folder is made.

    Raises AgentError `queue` when another account has put something unusable in the folder's place, and for each error
    of the file system while the folder is open.
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


def open_checked(folder: int, name: str, place: str, owner: Optional[int] = None) -> int:
    """Open a file of the folder for reading. When `owner` is given, the file must belong to it.

    Raises Odd, FileNotFoundError.
    """
    try:
        fd = os.open(name, _LOOK, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Odd(_describe_odd(folder, name, place, os.strerror(error.errno or 0).lower())) from None
    status = os.fstat(fd)
    why = None
    if not stat.S_ISREG(status.st_mode):
        why = "not a regular file"
    elif status.st_nlink > 1:
        why = "a hard link to another file"
    elif owner is not None and status.st_uid != owner:
        why = "not a file of %s" % account(owner)
    if why is not None:
        os.close(fd)
        raise Odd(_describe_odd(folder, name, place, why))
    return fd


def try_lock(folder: int, name: str, place: str) -> Optional[locks.Held]:
    """Lock a file that all accounts use and return the lock, or None when it is held. A missing file is made.

    Raises Odd.
    """
    while True:
        try:
            fd = open_checked(folder, name, place)
        except FileNotFoundError:
            try:
                # All accounts may write: an agent of an older gpurun opens the file for writing. Nobody reads its
                # content.
                fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            except FileExistsError:
                continue
            os.fchmod(fd, 0o666)  # past the umask
        if not _flock(fd, fcntl.LOCK_EX):
            os.close(fd)
            return None
        if is_named(folder, name, fd):  # else the file was removed between our open and our lock
            return locks.Held(place, fd)
        os.close(fd)


def is_held(fd: int) -> bool:
    """Return whether a process holds the lock of this open file. Asks with a shared lock, which is released at once."""
    if not _flock(fd, fcntl.LOCK_SH):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def put(folder: int, name: str, place: str, content: bytes = b"") -> locks.Held:
    """Make a file that is locked by this process from its first moment, and replace an earlier file of this user with the same name.

    A process that has locked the earlier file holds nothing by it. Raises Odd when another account has a file of that
    name.
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
            raise Odd(
                _describe_odd(folder, name, place, "is in the place of a file of this user", tell_kind=False)
            ) from None
        raise


def read_small(fd: int) -> bytes:
    """Return the beginning of an open file, which may have any size."""
    return os.pread(fd, 4096, 0)


def is_named(folder: int, name: str, fd: int) -> bool:
    """Return whether the open file is still the one with that name."""
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
                os.mkdir(within, 0o700, dir_fd=top)  # the next step opens it to all
            inner = _open_folder(top, within, path(within))
        if inner is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return inner
    finally:
        os.close(top)


def _open_folder(parent: Optional[int], name: str, place: str) -> Optional[int]:
    """Open a folder; return None when it is missing.

    A folder of this user that is not open to all is opened to all: an earlier process was killed while it made the folder.
    """
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        raise _closed_error(parent, name, place, status) from error
    try:
        status = os.fstat(fd)
        if stat.S_IMODE(status.st_mode) & FOR_ALL == FOR_ALL:
            return fd
        if status.st_uid == os.getuid():
            os.fchmod(fd, FOR_ALL)
            return fd
        raise _closed_error(parent, name, place, status)
    except BaseException:
        os.close(fd)
        raise


def _make() -> None:
    """Make the folder under another name and rename it: a process that is killed leaves no folder closed to others."""
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


def _closed_error(parent: Optional[int], name: str, place: str, status: os.stat_result) -> AgentError:
    """Return the error for a folder that this account cannot use."""
    is_folder = stat.S_ISDIR(status.st_mode)
    why = "its mode is %04o" % stat.S_IMODE(status.st_mode) if is_folder else "not a folder"
    what = "the folder of the GPU queue cannot be used: " + _describe_odd(
        parent, name, place, why, tell_kind=not is_folder
    )
    return AgentError(
        error_codes.QUEUE, what, "let its owner or root run: chmod 1777 %s, or remove it" % place, where=place
    )


def _describe_odd(folder: Optional[int], name: str, place: str, why: str, *, tell_kind: bool = True) -> str:
    """Return which file is odd, its owner and the reason.

    With `tell_kind`, a file that is not regular is described by its kind.
    """
    shown = ascii(place)[1:-1]  # another account chose this name, and it is printed to a terminal
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return "%s: %s" % (shown, why)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode)) if tell_kind else None
    return "%s of %s: %s" % (shown, account(status.st_uid), kind or why)
