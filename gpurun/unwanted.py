"""What stays on the laptop although no ignore file says so, as long as git does not track it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from gpurun.agent import vocabulary as words

VERSION_CONTROL = "version control"
CACHE = "cache"
ENVIRONMENT = "virtual environment"
SECRET = "may be a secret"
FETCHED = "fetched from a run"

FOLDERS = {
    **dict.fromkeys((b".git", b".hg", b".svn"), VERSION_CONTROL),
    **dict.fromkeys((b"__pycache__", b".ipynb_checkpoints", b"node_modules", b".eggs", b".tox", b".nox"), CACHE),
    **dict.fromkeys((b".mypy_cache", b".pytest_cache", b".ruff_cache", os.fsencode(words.WORKSPACE_PRIVATE)), CACHE),
}
# What a folder is that holds one of these: a virtual environment (venv, virtualenv, uv; conda), or a fetch's destination.
MARKS = {b"pyvenv.cfg": ENVIRONMENT, b"conda-meta/history": ENVIRONMENT, b".gpurun/fetch.json": FETCHED}

_SECRETS = re.compile(
    rb"\.env|\.envrc|\.env\.(?!example$|sample$|template$|dist$).*|.*\.pem|id_(rsa|ed25519|ecdsa).*", re.S
)
_CACHES = re.compile(rb".*\.py[co]|\.DS_Store", re.S)

# How many files are counted in what stays out: a virtual environment may have 50,000.
COUNTED = 5000


class LeftOut(NamedTuple):
    """A file, or a folder with a `/` at its end, that stays on the laptop. `size` in bytes.

    `at_least`: there are more files than were counted.
    """

    path: str
    why: str
    files: int
    size: int
    at_least: bool = False


def file_reason(name: bytes) -> str | None:
    """Why a file of that name, which git does not track, stays out; None when it may travel."""
    if name in FOLDERS:
        return FOLDERS[name]  # `.git` is a file in a worktree and in a submodule
    if _CACHES.fullmatch(name):
        return CACHE
    return SECRET if _SECRETS.fullmatch(name) else None


def folder_reason(name: bytes, full: bytes) -> str | None:
    """Why the folder `full`, named `name`, stays out; None when it may travel."""
    if name in FOLDERS:
        return FOLDERS[name]
    return next((what for mark, what in MARKS.items() if os.path.exists(os.path.join(full, mark))), None)


def measure(root: bytes, left_out: dict[bytes, str]) -> tuple[LeftOut, ...]:
    """Count files and bytes of what stays out (paths below `root`, with the reason), COUNTED files in all."""
    budget = COUNTED
    measured = []
    for path, why in sorted(left_out.items()):
        files, size, at_least = _count(os.path.join(root, path), budget)
        budget -= files
        measured.append(LeftOut(os.fsdecode(path), why, files, size, at_least))
    return tuple(measured)


def _count(full: bytes, budget: int) -> tuple[int, int, bool]:
    if not full.endswith(b"/"):
        try:
            return 1, os.lstat(full).st_size, False
        except OSError:
            return 1, 0, False
    files = size = 0
    waiting = [full]
    while waiting:
        try:
            found = os.scandir(waiting.pop())
        except OSError:
            continue
        with found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    waiting.append(item.path)
                    continue
                if files >= budget:
                    return files, size, True
                files += 1
                size += item.stat(follow_symlinks=False).st_size
    return files, size, False
