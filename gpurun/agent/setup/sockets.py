"""Where a run's services listen: Unix sockets in a folder that nobody else can enter, with a short path.

The path counts: a socket's may have about 104 bytes, and the folder of a run can be longer by itself. In a container the
sockets lie in the run's `out/`; a link in the folder of our locks is the short way there.
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
_LONGEST = 107  # bytes, of a socket's path on Linux
_OF_MULTIPROCESSING = 32  # bytes, of what Python puts behind TMPDIR: /pymp-xxxxxxxx/listener-xxxxxxxx


def folder(run: RunPaths) -> str:
    """The short path, as the host's sshd sees it. It need not exist."""
    return os.path.join(locks.folder(), PREFIX + run.id)


def make(run: RunPaths, job: Job) -> str:
    """The folder of `folder`, made if it is not there: 0700."""
    path = folder(run)
    if job["host"]["runtime"] == "bare":
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path
    # The job may have made another thing of the name.
    with files.opened_below(run.out, os.path.relpath(run.sockets, run.out)) as fd:
        with suppress(PermissionError):  # a job that is root has taken it: runs/ is closed to others all the same
            os.fchmod(fd, 0o700)
    return _lead(path, run.sockets)


def _lead(path: str, to: str) -> str:
    """The link `path`, made if it is not there."""
    if not os.path.lexists(path):
        with suppress(FileExistsError):  # another process of ours was quicker
            os.symlink(to, path)
    return path


def way_to_tmp(run: RunPaths) -> str:
    """A short path, whatever the run is called. It need not exist."""
    return os.path.join(locks.folder(), PREFIX + "tmp-" + hashlib.sha256(run.id.encode()).hexdigest()[:12])


def tmp(run: RunPaths) -> str:
    """The run's folder for temporary files, by a path that leaves room for Python's own sockets in there.

    A DataLoader whose workers find theirs too long waits for ever. The folder itself stays where the checkpoints are.
    """
    if len(os.fsencode(run.tmp)) + _OF_MULTIPROCESSING <= _LONGEST:
        return run.tmp
    return _lead(way_to_tmp(run), run.tmp)


def connect(run: RunPaths, job: Job, name: str, timeout: Optional[float] = None) -> socket.socket:
    """A connection to one of them. Raises OSError.

    A job in a container may put a link to any socket of the host in the place of its own (the engine's, an SSH agent's),
    and its page in the user's browser would speak to that: no link is followed.
    """
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    near.settimeout(timeout)
    try:
        if job["host"]["runtime"] == "bare":
            near.connect(os.path.join(folder(run), name))
        else:
            _connect_below(near, run.out, os.path.relpath(run.sockets, run.out), name)
    except BaseException:
        near.close()
        raise
    return near


def _connect_below(near: socket.socket, top: str, within: str, name: str) -> None:
    opened = [os.open(top, os.O_PATH | os.O_DIRECTORY)]
    try:
        opened.append(os.open(within, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        opened.append(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=opened[-1]))
        if not stat.S_ISSOCK(os.fstat(opened[-1]).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), name)
        near.connect("/proc/self/fd/%d" % opened[-1])
    finally:
        for fd in opened:
            os.close(fd)


def remove(run: RunPaths) -> None:
    """After the run's end. Nothing there is no error."""
    path = folder(run)
    if os.path.islink(path):
        os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
    files.remove(way_to_tmp(run))
    if os.path.isdir(run.sockets) and not os.path.islink(run.sockets):
        shutil.rmtree(run.sockets, ignore_errors=True)
    else:  # whatever the job has made of the name: what is left is looked for at each contact
        files.remove(run.sockets)
