"""Choose the folder of this user's locks: on a local disk, closed to other accounts.

The folder is in /tmp. When another account has taken its name there, the folder is below the home instead, from then
on, if the home is on a disk of this host: on a file system that several hosts share, each would see the locks of all.
"""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress
from typing import Optional

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from . import disks

_LOCAL = (*disks.LASTING, "tmpfs", "overlay")


def base_folder() -> str:
    return os.environ.get("GPURUN_LOCKS", "/tmp")  # noqa: S108


def first_choice() -> str:
    """Return where the folder is unless another account has taken its name.

    The names of abstract sockets always come from this path.
    """
    return os.path.join(base_folder(), "gpurun-%d" % os.getuid())


def _second_choice() -> str:
    return os.path.join(os.path.expanduser("~"), words.HOME, words.LOCKS, os.path.basename(first_choice()))


def is_it(path: str) -> bool:
    """Return whether `path` is, or may be, the folder of this user's locks."""
    return path in (first_choice(), _second_choice())


def folder() -> str:
    """Return the folder of this user's locks.

    It must have mode 0700 and belong to this user: else others could hold or free locks.
    """
    second = _second_choice()
    # A supervisor may hold locks in the second folder, whatever the first is now. In a shared home it may be another
    # host's.
    if os.path.lexists(second) and _home_is_local():
        return _check(second)
    path = first_choice()
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
        return _check(path)
    return _make_second(second) or _check(path)


def _make_second(path: str) -> Optional[str]:
    """Make the folder below the home. Return None when the home is not on a local disk, or is not writable."""
    if not _home_is_local():
        return None
    try:
        for part in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path), path):
            with suppress(FileExistsError):
                os.mkdir(part, 0o700)
    except OSError:
        return None
    return _check(path)


def _home_is_local() -> bool:
    return disks.type_of(disks.read_mounts(), os.path.expanduser("~")) in _LOCAL


def _check(path: str) -> str:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != 0o700:
        raise _ownership_error(path, status)
    return path


def _ownership_error(path: str, status: os.stat_result) -> AgentError:
    if status.st_uid == os.getuid():
        what = "the folder of gpurun's locks, %s, is open to other accounts (mode %04o)" % (
            path,
            stat.S_IMODE(status.st_mode),
        )
        return AgentError(error_codes.LOCKS, what, "remove it when no run is live on the host", where=path)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = "uid %d" % status.st_uid
    what = "the folder of gpurun's locks, %s, belongs to another account: %s" % (path, owner)
    return AgentError(error_codes.LOCKS, what, "ask its owner or root to remove it", where=path)
