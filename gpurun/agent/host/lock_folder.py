"""The folder of this user's locks: on a local disk, closed to others.

It is in /tmp, where another account may have taken its name. Then, and from then on, it is below the home, if that is on a disk
of this machine: a file system that several machines share would show each the locks of all.
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
    """Where the folder is when nobody is in the way. The names of abstract sockets come from it, wherever it is."""
    return os.path.join(base_folder(), "gpurun-%d" % os.getuid())


def _second_choice() -> str:
    return os.path.join(os.path.expanduser("~"), words.HOME, words.LOCKS, os.path.basename(first_choice()))


def is_it(path: str) -> bool:
    """Tell whether `path` is where this user's locks are, or may be."""
    return path in (first_choice(), _second_choice())


def folder() -> str:
    """This user's locks: 0700 and ours, or nothing works (somebody else could hold or free them)."""
    second = _second_choice()
    # A supervisor may hold locks there, whatever has become of the other; in a home that is shared, another machine's.
    if os.path.lexists(second) and _home_is_local():
        return _checked(second)
    path = first_choice()
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
        return _checked(path)
    return _make_second(second) or _checked(path)


def _make_second(path: str) -> Optional[str]:
    """Make the folder below the home; None where that is on no local disk, or cannot be written to."""
    if not _home_is_local():
        return None
    try:
        for part in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path), path):
            with suppress(FileExistsError):
                os.mkdir(part, 0o700)
    except OSError:
        return None
    return _checked(path)


def _home_is_local() -> bool:
    return disks.type_of(disks.read_mounts(), os.path.expanduser("~")) in _LOCAL


def _checked(path: str) -> str:
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise _not_ours(path, found)
    return path


def _not_ours(path: str, found: os.stat_result) -> AgentError:
    if found.st_uid == os.getuid():
        what = "the folder of gpurun's locks, %s, is open to others (mode %04o)" % (path, stat.S_IMODE(found.st_mode))
        return AgentError(error_codes.LOCKS, what, "remove it, when no run is live here", where=path)
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = "uid %d" % found.st_uid
    what = "the folder of gpurun's locks, %s, belongs to somebody else: %s" % (path, owner)
    return AgentError(error_codes.LOCKS, what, "let its owner or root remove it", where=path)
