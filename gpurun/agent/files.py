"""Files that are never seen half-written."""

import errno
import json
import os
import stat
import tempfile
from typing import Any, BinaryIO, Callable, Optional, Union


def write_atomically(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write `data` beside `path`, fsync, rename over it. Readers see the old file or the new one, nothing between."""
    folder = os.path.dirname(path)
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(folder)


def remove(path: str) -> None:
    """Remove a file, or nothing when it is gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def sync_folder(folder: str) -> None:
    """Make the names in `folder` last over a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: str) -> None:
    """Make the content of one file last over a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_disk(path: str) -> None:
    """Flush all that was written to the file system of `path`, once, before a marker claims that it is complete.

    A journal that is flushed at each event outlives a power cut; files that were only written do not. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        syncfs = _syncfs()
        if syncfs is None:
            os.sync()  # of all file systems: slower, and enough
            return
        failed = syncfs(fd)
        if failed:
            raise OSError(failed, os.strerror(failed), path)
    finally:
        os.close(fd)


def _syncfs() -> Optional[Callable[[int], int]]:
    """The system's call, which Python does not have, as a function that returns an errno or 0; None without one."""
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        return None
    return lambda fd: 0 if call(ctypes.c_int(fd)) == 0 else ctypes.get_errno() or errno.EIO


def write_json(path: str, value: Any, mode: int = 0o644) -> None:
    write_atomically(path, (json.dumps(value, sort_keys=True) + "\n").encode(), mode)


def open_regular(path: Union[str, bytes]) -> BinaryIO:
    """Open what a job may have put in a file's place: a link is not followed, a pipe does not hold us. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "no regular file", path)
    return os.fdopen(fd, "rb")


def read_json(path: str) -> Optional[Any]:
    """The document in `path`, or None when there is no such file or it is no JSON."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
