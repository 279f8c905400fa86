"""What is wrong with a disk of this machine, in words of what to do about it: full, over quota, read-only, another's."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gpurun.agent import error_codes
from gpurun.errors import GpurunError

NO_ROOM = 1_000_000  # bytes; with fewer free a disk counts as full

_SAYS = {
    errno.ENOSPC: ("a disk of this machine is full", "free space there, then repeat the command"),
    errno.EDQUOT: ("your quota on a disk of this machine is used up", "free space there, then repeat the command"),
    errno.EROFS: (
        "a disk of this machine is read-only",
        "make it writable, or name other places for gpurun's files: XDG_DATA_HOME, XDG_CONFIG_HOME, XDG_CACHE_HOME, TMPDIR",
    ),
    errno.EIO: ("a disk of this machine fails", "look at the end of `dmesg`, and save what you need"),
}


def explain(error: OSError) -> GpurunError | None:
    """Return what `error` means when a disk of this machine is the reason; None when something else is."""
    at, number = str(error.filename or ""), error.errno or 0
    if isinstance(error, FileNotFoundError) and not at:
        number = errno.ENOSPC  # of `tempfile`, which found no folder that it could write to
    if number in _SAYS:
        what, next_step = _SAYS[number]
        return GpurunError(what, next_step, where=at or _full_place(), code=error_codes.DISK_FULL)
    if number in (errno.EACCES, errno.EPERM) and at and _is_ours(Path(at)):
        return GpurunError(
            f"gpurun may not use its own files: {os.strerror(number).lower()}",
            f"make them yours: sudo chown -R {os.getuid()} {at}",
            where=at,
        )
    return None


def short(error: OSError) -> str:
    """Return `error` as the end of a sentence: why, and where."""
    at = str(error.filename or "") or (_full_place() if error.errno == errno.ENOSPC else "")
    return (error.strerror or str(error)) + (f": {at}" if at else "")


def _places() -> Iterable[Path]:
    """Where gpurun keeps what it needs."""
    import platformdirs

    yield from (platformdirs.user_data_path("gpurun"), platformdirs.user_config_path("gpurun"))
    yield platformdirs.user_cache_path("gpurun")


def _is_ours(at: Path) -> bool:
    return any(at == place or place in at.parents or at in place.parents for place in _places())


def _full_place() -> str:
    """The first of the folders that gpurun writes to whose disk has no room; "" when all have."""
    folders = [*_places(), Path(os.environ.get("TMPDIR") or "/tmp"), Path.cwd()]
    for folder in folders:
        there = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
        with suppress(OSError):
            if there is not None and shutil.disk_usage(there).free < NO_ROOM:
                return str(folder)
    return ""
