"""Give the workspace of a session to the next session of the project, with the current code.

For each file there are three contents: the code that the earlier session began with, what lies in its workspace, and the
code as submitted now. What the user changed there stays; what he did not touch follows the code. Where both changed, his
file stays and the new one lies beside it. Whether a file can be executed follows by itself in the same way. Folders are but
the way to files; a link in their place is the user's.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from typing import List, Optional, Set

from ..files import sync_disk, sync_folder
from ..paths import RunPaths

BESIDE = ".from-laptop"  # behind the name of a file that changed on both sides


def take_over(earlier: RunPaths, run: RunPaths) -> List[str]:
    """Bring the earlier workspace to the new code, then make it this run's. Safe to repeat after a crash.

    Returns the paths that changed on both sides.
    """
    conflicts = merge(earlier.snapshot, earlier.workspace, run.snapshot)
    sync_disk(earlier.workspace)  # behind the rename nothing is brought to the new code again
    os.rename(earlier.workspace, run.workspace)
    for folder in (run.root, earlier.root):
        sync_folder(folder)
    return conflicts


def merge(before: str, workspace: str, now: str) -> List[str]:
    """Change `workspace` from the code in `before` to that in `now`; both stay as they are."""
    old_files, new_files = _files(before), _files(now)
    # First what goes: a file may make room for a folder, and a folder for a file.
    for path in sorted(old_files - new_files):
        own = os.path.join(workspace, path)
        if _in_the_way(workspace, path) is None and _same(own, os.path.join(before, path)):
            os.unlink(own)
            _remove_empty(workspace, os.path.dirname(path))
    return [path for path in sorted(new_files) if _follow(before, workspace, now, path)]


def _follow(before: str, workspace: str, now: str, path: str) -> bool:
    """Bring one file to what it is in `now`; whether it changed on both sides."""
    old, own, new = (os.path.join(folder, path) for folder in (before, workspace, now))
    if _same(old, new):
        _follow_mode(workspace, path, old, new)
        return False
    obstacle = _in_the_way(workspace, path)
    if obstacle is not None:
        _put(workspace, os.path.join(workspace, obstacle) + BESIDE + path[len(obstacle) :], new)
        return True
    if _same(own, new):
        _follow_mode(workspace, path, old, new)
        return False
    untouched = _same(own, old) and not _is_folder(own)
    # What the user removed there and was changed here comes again.
    _put(workspace, own if untouched or not os.path.lexists(own) else own + BESIDE, new)
    return not untouched


def _follow_mode(workspace: str, path: str, old: str, new: str) -> None:
    """`chmod` alone changes no content; what the user set on his side stays."""
    own = os.path.join(workspace, path)
    if _in_the_way(workspace, path) is not None or not all(_is_file(one) for one in (old, own, new)):
        return
    mode = _permissions(new)
    if mode != _permissions(old) == _permissions(own):
        os.chmod(own, mode)


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _permissions(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _files(folder: str) -> Set[str]:
    found: Set[str] = set()
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        found.update(os.path.relpath(os.path.join(where, name), folder) for name in names + links)
    return found


def _in_the_way(workspace: str, path: str) -> Optional[str]:
    """The part of `path` that is a folder in the code, and something else here; a link may lead out of the workspace."""
    parts = path.split(os.sep)
    for count in range(1, len(parts)):
        above = os.path.join(*parts[:count])
        place = os.path.join(workspace, above)
        if os.path.islink(place) or (os.path.lexists(place) and not os.path.isdir(place)):
            return above
    return None


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _same(one: str, other: str) -> bool:
    """Two files with the same content, two links with the same target, or two that are no files."""
    there = [os.path.lexists(path) and not _is_folder(path) for path in (one, other)]
    if not all(there):
        return not any(there)
    if os.path.islink(one) or os.path.islink(other):
        return os.path.islink(one) and os.path.islink(other) and os.readlink(one) == os.readlink(other)
    return os.path.isfile(one) and os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)


def _put(workspace: str, own: str, new: str) -> None:
    """Put a copy of `new` at `own`, unless the user has something there that is in its way."""
    if _is_folder(own) or _in_the_way(workspace, os.path.relpath(own, workspace)) is not None:
        return
    try:
        os.makedirs(os.path.dirname(own), exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return
    half = own + ".gpurun-new"
    if os.path.lexists(half):  # of one that was killed: nothing is to be written through a link
        os.unlink(half)
    shutil.copy2(new, half, follow_symlinks=False)
    os.replace(half, own)


def _remove_empty(workspace: str, folder: str) -> None:
    while folder:
        try:
            os.rmdir(os.path.join(workspace, folder))
        except OSError:  # the user keeps something in it
            return
        folder = os.path.dirname(folder)
