"""Write files that are never seen half-written, and read files that a job may have replaced."""

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
    """Write `data` beside `path`, fsync, rename over it.

    Readers see the old content or the new content, nothing between.
    """
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
            error.filename = path  # an error of `write` has no filename, and the user needs it to free space
        raise
    sync_folder(folder)


def remove(path: str) -> None:
    """Remove a file. Do nothing when it is gone."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_tree(path: str, note: Callable[[str, OSError], None]) -> None:
    """Remove a folder and its content.

    `note` gets each path that could not be removed, and why; a missing path is not a failure.
    """

    def on_error(_: Any, name: str, error: Any) -> None:
        cause = error[1] if isinstance(error, tuple) else error
        if not isinstance(cause, FileNotFoundError):  # another process removed it
            note(name, cause)

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=on_error)  # novm
    else:
        shutil.rmtree(path, onerror=on_error)


def sync_folder(folder: str) -> None:
    """Flush the names in `folder`, so that they survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_disk(path: str) -> None:
    """Flush all that was written to the file system of `path`, once, before a marker claims that it is complete.

    A journal that is flushed at each event survives a power cut; files that were only written do not. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        syncfs = _syncfs()
        if syncfs is None:
            os.sync()  # flushes all file systems: slower, but enough
            return
        error_number = syncfs(fd)
        if error_number:
            raise OSError(error_number, os.strerror(error_number), path)
    finally:
        os.close(fd)


def _syncfs() -> Optional[Callable[[int], int]]:
    """Return the system call, which Python lacks, as a function that returns an errno or 0; None when it is missing."""
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        return None
    return lambda fd: 0 if call(ctypes.c_int(fd)) == 0 else ctypes.get_errno() or errno.EIO


def write_json(path: str, value: Any, mode: int = 0o644) -> None:
    write_atomically(path, (json.dumps(value, sort_keys=True) + "\n").encode(), mode)


def open_regular(path: Union[str, bytes]) -> BinaryIO:
    """Open a file that a job may have replaced: a link is not followed, and a pipe does not block. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.fdopen(fd, "rb")


def read_untrusted(path: str, most: int) -> bytes:
    """Return the last `most` bytes of a file that a job writes. It may have any size, or be of another kind.

    Raises OSError.
    """
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most)


@contextmanager
def opened_below(top: str, within: str) -> Iterator[int]:
    """Yield a descriptor of the folder `within` in a tree that a job can write to. A missing folder is made.

    Raises OSError.

    A link, or anything else that a job has put in the place of a folder on the way, is removed and never followed.
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
    """Copy a file into the folder `within` (see `opened_below`) as `name`, completely or not at all. Raises OSError."""
    temporary = ".new-" + secrets.token_hex(6)
    with open_regular(source) as content, opened_below(top, within) as folder:
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder
        )
        try:
            with os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(fd)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise


def read_json(path: str) -> Optional[Any]:
    """Return the document in `path`, or None when the file is missing or is not valid JSON."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
