"""Give the workspace of a session to the next session of the project, with the current code.

Each file has three versions: in the code that the earlier session began with, in the workspace of that session, and in
the code as submitted now. A file that the user changed in the workspace stays; an unchanged file is replaced by the
current code. Where both changed, the user's file stays and the new file is written beside it. The executable bit is
merged separately in the same way. Folders have no version of their own; a link in the place of a folder is the user's.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from typing import List, Optional, Set

from ..files import sync_disk, sync_folder
from ..paths import RunPaths

BESIDE = ".from-laptop"  # suffix of the name of a file that changed on both sides


def take_over(earlier: RunPaths, run: RunPaths) -> List[str]:
    """Merge the current code into the earlier workspace, then move the workspace to this run.

    Safe to repeat after a crash.

    Returns the paths that changed on both sides.
    """
    conflicts = merge(earlier.snapshot, earlier.workspace, run.snapshot)
    sync_disk(earlier.workspace)  # after the rename, no merge is repeated
    os.rename(earlier.workspace, run.workspace)
    for folder in (run.root, earlier.root):
        sync_folder(folder)
    return conflicts


def merge(before: str, workspace: str, now: str) -> List[str]:
    """Change `workspace` from the code in `before` to the code in `now`. Both stay unchanged."""
    old_files, new_files = _files(before), _files(now)
    # First remove files: a file may have to make room for a folder, and a folder for a file.
    for path in sorted(old_files - new_files):
        own = os.path.join(workspace, path)
        if _in_the_way(workspace, path) is None and _same(own, os.path.join(before, path)):
            os.unlink(own)
            _remove_empty(workspace, os.path.dirname(path))
    return [path for path in sorted(new_files) if _follow(before, workspace, now, path)]


def _follow(before: str, workspace: str, now: str, path: str) -> bool:
    """Bring one file to the version in `now`. Return whether it changed on both sides."""
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
    # A file that the user removed in the workspace and changed in the code comes back.
    _put(workspace, own if untouched or not os.path.lexists(own) else own + BESIDE, new)
    return not untouched


def _follow_mode(workspace: str, path: str, old: str, new: str) -> None:
    """Apply `chmod` alone, which changes no content. A mode that the user set in the workspace stays."""
    own = os.path.join(workspace, path)
    if _in_the_way(workspace, path) is not None or not all(_is_file(version) for version in (old, own, new)):
        return
    mode = _permissions(new)
    if mode != _permissions(old) == _permissions(own):
        os.chmod(own, mode)


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _permissions(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _files(folder: str) -> Set[str]:
    paths: Set[str] = set()
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        paths.update(os.path.relpath(os.path.join(where, name), folder) for name in names + links)
    return paths


def _in_the_way(workspace: str, path: str) -> Optional[str]:
    """Return the part of `path` that is a folder in the code and something else here.

    A link may point outside the workspace.
    """
    parts = path.split(os.sep)
    for count in range(1, len(parts)):
        above = os.path.join(*parts[:count])
        place = os.path.join(workspace, above)
        if os.path.islink(place) or (os.path.lexists(place) and not os.path.isdir(place)):
            return above
    return None


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _same(left: str, right: str) -> bool:
    """Return whether both are files with the same content, or links with the same target, or neither is a file."""
    is_file = [os.path.lexists(path) and not _is_folder(path) for path in (left, right)]
    if not all(is_file):
        return not any(is_file)
    if os.path.islink(left) or os.path.islink(right):
        return os.path.islink(left) and os.path.islink(right) and os.readlink(left) == os.readlink(right)
    return os.path.isfile(left) and os.path.isfile(right) and filecmp.cmp(left, right, shallow=False)


def _put(workspace: str, own: str, new: str) -> None:
    """Copy `new` to `own`, unless something of the user is in the way."""
    if _is_folder(own) or _in_the_way(workspace, os.path.relpath(own, workspace)) is not None:
        return
    try:
        os.makedirs(os.path.dirname(own), exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return
    temporary = own + ".gpurun-new"
    if os.path.lexists(temporary):  # left by a process that was killed: do not write through a link
        os.unlink(temporary)
    shutil.copy2(new, temporary, follow_symlinks=False)
    os.replace(temporary, own)


def _remove_empty(workspace: str, folder: str) -> None:
    while folder:
        try:
            os.rmdir(os.path.join(workspace, folder))
        except OSError:  # the user has something in it
            return
        folder = os.path.dirname(folder)
