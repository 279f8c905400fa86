"""Files that are never seen half-written."""

import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from contextlib import contextmanager
from typing import Any, BinaryIO, Callable, Iterator, Optional, Union


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
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path  # a write tells none, and who is to free space wants to know where
        raise
    sync_folder(folder)


def remove(path: str) -> None:
    """Remove a file, or nothing when it is gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_tree(path: str, note: Callable[[str, OSError], None]) -> None:
    """Remove a folder and all in it. `note` gets each path that could not be removed, and why; one that is gone is no failure."""

    def failed(_: Any, name: str, error: Any) -> None:
        cause = error[1] if isinstance(error, tuple) else error
        if not isinstance(cause, FileNotFoundError):  # somebody else removes the same
            note(name, cause)

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=failed)  # novm
    else:
        shutil.rmtree(path, onerror=failed)


def sync_folder(folder: str) -> None:
    """Make the names in `folder` last over a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
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


def read_untrusted(path: str, most: int) -> bytes:
    """The last `most` bytes of a file that a job writes, which may be of any size, or no file. Raises OSError."""
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most)


@contextmanager
def opened_below(top: str, within: str) -> Iterator[int]:
    """A descriptor of the folder `within` in a tree that a job can write to, made if it is not there. Raises OSError.

    A link, or what else a job has made in the place of a folder on the way, is not followed but removed.
    """
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in within.split("/"):
            inner = _open_or_make(fd, name)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _open_or_make(parent: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=parent)
    os.mkdir(name, dir_fd=parent)
    return os.open(name, flags, dir_fd=parent)


def copy_below(source: str, top: str, within: str, name: str) -> None:
    """Copy a file into the folder `within` (see `opened_below`) as `name`, complete or not at all. Raises OSError."""
    half = ".new-" + secrets.token_hex(6)
    with open_regular(source) as content, opened_below(top, within) as folder:
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(fd)
            os.rename(half, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(half, dir_fd=folder)
            raise


def read_json(path: str) -> Optional[Any]:
    """The document in `path`, or None when there is no such file or it is no JSON."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
