"""What stays on the laptop although no ignore file says so, as long as git does not track it."""

from __future__ import annotations

import json
import os
import re
import stat
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
# A folder that holds one of these is a virtual environment (venv, virtualenv, uv; conda).
ENVIRONMENT_MARKS = (b"pyvenv.cfg", b"conda-meta/history")
FETCH_NOTE = b".gpurun/fetch.json"  # what a fetch keeps in its destination (gpurun/fetch/destination.py)

# Names that keys and passwords have; a submit leaves these files out, and a fetch makes them their owner's alone (fetch/plan.py).
SECRET_NAMES = (
    r"\.env|\.envrc|\.env\.(?!example$|sample$|template$|dist$).*|id_(?:rsa|dsa|ed25519|ecdsa).*|.*\.(?:pem|ppk|p12|pfx)"
    r"|[._]netrc|\.pypirc|\.pgpass|\.git-credentials|kaggle\.json|service[_-]?account.*\.json"
)
_SECRETS = re.compile(SECRET_NAMES.encode(), re.S | re.I)
# Folders in which programs keep keys and tokens. They never travel, whatever git or an ignore file says.
_KEY_FOLDERS = re.compile(
    rb"(?:.*/)?(?:\.ssh|\.gnupg|\.aws|\.azure|\.kube|\.kaggle|\.huggingface|\.config/(?:gcloud|gh|rclone))/", re.S
)
# A line of its own, indented or not, or a text in quotes, as JSON and YAML have it; and key behind it, so that code which looks for
# these words is none.
_PRIVATE_KEY = re.compile(
    rb"""(?:^[ \t]*|["'])-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s)+[A-Za-z0-9+/]""", re.M
)
_KEY_BYTES = 16 << 10  # of a file are searched; no private key is larger
# Not searched: there are many of them, and no program keeps a key in one.
_DATA = re.compile(
    rb".*\.(?:png|jpe?g|gif|webp|bmp|tiff?|wav|flac|mp[34]|npy|npz|pt|pth|ckpt|safetensors|onnx|h5|hdf5|parquet|arrow|feather"
    rb"|tfrecords?|zip|gz|xz|bz2|zst)",
    re.S | re.I,
)
_CACHES = re.compile(rb".*\.py[co]|\.DS_Store", re.S)

# Files that a fetch placed, relative to its destination: their size and mtime_ns.
Placed = dict[bytes, tuple[int, int]]

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


def key_folder(path: bytes) -> bytes | None:
    """Return the innermost folder of keys or tokens in which `path` lies, with a `/` at its end; None when in none."""
    found = _KEY_FOLDERS.match(path)
    return found[0] if found else None


def holds_private_key(full: bytes) -> bool:
    """Return whether a private key begins in the first 16 KB of the file `full`. False when it cannot be read.

    Images, arrays and archives are not looked into.
    """
    if _DATA.fullmatch(full):
        return False
    try:
        if not stat.S_ISREG(os.lstat(full).st_mode):
            return False
        with open(full, "rb", buffering=0) as file:
            return _PRIVATE_KEY.search(file.read(_KEY_BYTES)) is not None
    except OSError:
        return False


def folder_reason(name: bytes, full: bytes) -> str | None:
    """Why the folder `full`, named `name`, stays out; None when it may travel."""
    if name in FOLDERS:
        return FOLDERS[name]
    if any(os.path.exists(os.path.join(full, mark)) for mark in ENVIRONMENT_MARKS):
        return ENVIRONMENT
    placed = fetched_into(full)
    return FETCHED if placed and _holds_only(full, placed) else None


def fetched_into(full: bytes) -> Placed:
    """What a fetch placed in the folder `full`. Code of the project may lie beside it, after `fetch -o models`."""
    try:
        with open(os.path.join(full, FETCH_NOTE), "rb") as file:
            files = json.load(file)["files"].values()
        return {os.fsencode(one["at"]): (one["here"][0], one["here"][1]) for one in files}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def is_untouched(full: bytes, stamp: tuple[int, int]) -> bool:
    """Return whether the file is still as a fetch placed it: what was edited since is the user's own."""
    try:
        info = os.lstat(full)
    except OSError:
        return False
    return (info.st_size, info.st_mtime_ns) == stamp


def _holds_only(full: bytes, placed: Placed) -> bool:
    for folder, folders, files in os.walk(full):
        if os.path.samefile(folder, full):
            folders[:] = [name for name in folders if name != os.path.dirname(FETCH_NOTE)]
        for name in files:
            path = os.path.join(folder, name)
            stamp = placed.get(os.path.relpath(path, full))
            if not os.path.islink(path) and (stamp is None or not is_untouched(path, stamp)):
                return False
    return True


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
