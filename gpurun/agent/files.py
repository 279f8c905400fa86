"""Files that are never seen half-written."""

import ctypes
import errno
import json
import os
import stat
import tempfile
from typing import Any, BinaryIO, Optional, Union


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


def sync_disk(folder: str) -> None:
    """Make everything that was written to the disk of `folder` last over a power cut: one call, however many files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    except AttributeError:  # a C library without it
        os.sync()
    finally:
        os.close(fd)


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
