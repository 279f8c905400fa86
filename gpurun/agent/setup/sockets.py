"""Make the Unix sockets on which a run's services listen: in a folder that no other account can enter, with a short
path.

The length matters: a socket's path may have about 104 bytes, and the folder of a run can be longer. In a container the
sockets are in the run's `out/`; a link in the folder of this user's locks is the short path to it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from .. import files
from ..host import locks
from ..paths import RunPaths

if TYPE_CHECKING:
    from ..schema.job import Job

PREFIX = "sockets-"
_LONGEST = 107  # most bytes of a socket's path on Linux
_OF_MULTIPROCESSING = 32  # bytes that Python appends to TMPDIR: /pymp-xxxxxxxx/listener-xxxxxxxx


def folder(run: RunPaths) -> str:
    """Return the short path, as the host's sshd sees it. The folder may not exist."""
    return os.path.join(locks.folder(), PREFIX + run.id)


def make(run: RunPaths, job: Job) -> str:
    """Make the folder of `folder` (mode 0700) when it is missing, and return its path."""
    path = folder(run)
    if job["host"]["runtime"] == "bare":
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path
    # The job may have put something else in its place.
    with files.opened_below(run.out, os.path.relpath(run.sockets, run.out)) as fd:
        with suppress(PermissionError):  # a job that is root owns it: runs/ is closed to others all the same
            os.fchmod(fd, 0o700)
    return _make_link(path, run.sockets)


def _make_link(path: str, to: str) -> str:
    """Make the link `path` when it is missing, and return its path."""
    if not os.path.lexists(path):
        with suppress(FileExistsError):  # another process of this user was faster
            os.symlink(to, path)
    return path


def tmp_link(run: RunPaths) -> str:
    """Return a path that is short whatever the run's name is. The link may not exist."""
    return os.path.join(locks.folder(), PREFIX + "tmp-" + hashlib.sha256(run.id.encode()).hexdigest()[:12])


def tmp(run: RunPaths) -> str:
    """Return the run's folder for temporary files, by a path that leaves room for Python's own sockets in it.

    A DataLoader whose workers' socket paths are too long waits for ever. The folder itself stays on the disk of the
    checkpoints.
    """
    if len(os.fsencode(run.tmp)) + _OF_MULTIPROCESSING <= _LONGEST:
        return run.tmp
    return _make_link(tmp_link(run), run.tmp)


def connect(run: RunPaths, job: Job, name: str, timeout: Optional[float] = None) -> socket.socket:
    """Connect to one of the run's sockets. Raises OSError.

    A job in a container may replace its socket by a link to any socket of the host (the engine's, an SSH agent's), and
    its page in the user's browser would then talk to that socket: no link is followed.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        if job["host"]["runtime"] == "bare":
            client.connect(os.path.join(folder(run), name))
        else:
            _connect_below(client, run.out, os.path.relpath(run.sockets, run.out), name)
    except BaseException:
        client.close()
        raise
    return client


def _connect_below(client: socket.socket, top: str, within: str, name: str) -> None:
    opened = [os.open(top, os.O_PATH | os.O_DIRECTORY)]
    try:
        opened.append(os.open(within, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        opened.append(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=opened[-1]))
        if not stat.S_ISSOCK(os.fstat(opened[-1]).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), name)
        client.connect("/proc/self/fd/%d" % opened[-1])
    finally:
        for fd in opened:
            os.close(fd)


def remove(run: RunPaths) -> None:
    """Remove the sockets after the run's end. Nothing to remove is not an error."""
    path = folder(run)
    if os.path.islink(path):
        os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
    files.remove(tmp_link(run))
    if os.path.isdir(run.sockets) and not os.path.islink(run.sockets):
        shutil.rmtree(run.sockets, ignore_errors=True)
    else:  # the job may have replaced the folder; what remains is checked at each connection
        files.remove(run.sockets)
