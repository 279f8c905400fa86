"""A session's workspace lasts: the next session of the project takes it over, with the code as it is now.

For each file there are three contents: the code that the earlier session began with, what lies in its workspace, and the
code as submitted now. What the user changed there stays; what he did not touch follows the code. Where both changed, his
file stays and the new one lies beside it.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from typing import List, Set

from .paths import RunPaths

BESIDE = ".from-laptop"  # behind the name of a file that changed on both sides


def take_over(earlier: RunPaths, run: RunPaths) -> List[str]:
    """Bring the earlier workspace to the new code, then make it this run's. Safe to repeat after a crash.

    Returns the paths that changed on both sides.
    """
    conflicts = merge(earlier.snapshot, earlier.workspace, run.snapshot)
    os.rename(earlier.workspace, run.workspace)
    return conflicts


def merge(before: str, workspace: str, now: str) -> List[str]:
    """Change `workspace` from the code in `before` to that in `now`; both stay as they are."""
    conflicts = []
    for path in sorted(_files(before) | _files(now)):
        old, own, new = (os.path.join(folder, path) for folder in (before, workspace, now))
        if _same(old, new) or _same(own, new):
            continue
        if _same(own, old):
            _replace(own, new)
        elif os.path.lexists(new):
            conflicts.append(path)
            if os.path.lexists(own):
                _replace(own + BESIDE, new)
            else:  # the user removed it there, and it was changed here
                _replace(own, new)
    return conflicts


def _files(folder: str) -> Set[str]:
    found: Set[str] = set()
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        found.update(os.path.relpath(os.path.join(where, name), folder) for name in names + links)
    return found


def _same(one: str, other: str) -> bool:
    """Two files with the same content, two links with the same target, or two that are not there."""
    if not os.path.lexists(one) or not os.path.lexists(other):
        return os.path.lexists(one) == os.path.lexists(other)
    if os.path.islink(one) or os.path.islink(other):
        return os.path.islink(one) and os.path.islink(other) and os.readlink(one) == os.readlink(other)
    return os.path.isfile(one) and os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)


def _replace(own: str, new: str) -> None:
    """Put a copy of `new` at `own`, or nothing where there is no `new`. A folder of the user's in its place stays."""
    if os.path.isdir(own) and not os.path.islink(own):
        return
    if not os.path.lexists(new):
        os.unlink(own)
        return
    os.makedirs(os.path.dirname(own), exist_ok=True)
    half = own + ".gpurun-new"
    shutil.copy2(new, half, follow_symlinks=False)
    os.replace(half, own)
