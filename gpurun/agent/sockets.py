"""Where a run's services listen: Unix sockets in a folder that nobody else can enter, with a short path.

The path counts: a socket's may have about 104 bytes, and the folder of a run can be longer by itself. In a container the
sockets lie in the run's `out/`; a link in the folder of our locks is the short way there.
"""

from __future__ import annotations

import os
import shutil
from typing import Any, Mapping

from . import locks
from .paths import RunPaths

PREFIX = "sockets-"


def folder(run: RunPaths) -> str:
    """The short path, as the host's sshd sees it. It need not exist."""
    return os.path.join(locks.folder(), PREFIX + run.id)


def make(run: RunPaths, job: Mapping[str, Any]) -> str:
    """The folder of `folder`, made if it is not there: 0700."""
    path = folder(run)
    if job["host"]["runtime"] == "bare":
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path
    os.makedirs(run.sockets, mode=0o700, exist_ok=True)
    if not os.path.lexists(path):
        try:
            os.symlink(run.sockets, path)
        except FileExistsError:  # another process of ours was quicker
            pass
    return path


def remove(run: RunPaths) -> None:
    """After the run's end. Nothing there is no error."""
    path = folder(run)
    if os.path.islink(path):
        os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(run.sockets, ignore_errors=True)
