"""Find what a job wrote: the files in its workspace that are new, or differ from the snapshot of the submitted code."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from .. import vocabulary as words
from ..file_names import CACHE_FILES, CACHES, matches, to_wire
from ..files import open_regular

if TYPE_CHECKING:
    from ..schema.files import OutputFile, Skipped

_CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
_BLOCK = 1 << 20

# Small and important files first: they have arrived when the connection breaks.
RECORD, METRICS, BEST, LAST, SMALL, CHECKPOINT, LARGE, OUTSIDE = range(8)
SMALL_BYTES = 8_000_000
_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors", ".onnx", ".pkl", ".joblib", ".bin", ".h5", ".npz")
_METRICS = ("metrics.csv", "*events.out.tfevents*", "hparams.yaml")
# Programs only append to these: the first part of such a file is useful, and does not change.
_GROWING = ("*.log", "*.csv", "*.tsv", "*.jsonl", "*.txt", "*events.out.tfevents*")


@dataclass
class Walk:
    """Hold the result of the walk. Paths are relative to the workspace."""

    files: List[Tuple[bytes, os.stat_result]] = field(default_factory=list)
    links: List[Tuple[bytes, str]] = field(default_factory=list)  # (path, relative target inside the workspace)
    skipped: List[Skipped] = field(default_factory=list)
    caches: List[str] = field(default_factory=list)

    def skip(self, path: bytes, why: str, *, lost: bool = True) -> None:
        """Record a skipped path. `lost`: the fetch is incomplete without it."""
        self.skipped.append({"path": to_wire(path), "why": why, "lost": lost})


def find_outputs(workspace: str, snapshot: str, *, with_caches: bool = False) -> Walk:
    """Walk the workspace and follow no link. An unreadable path is listed in `skipped` and does not stop the walk."""
    top = os.fsencode(workspace)
    code = os.fsencode(snapshot)
    walked = Walk()
    for path, entry in _walk(top, b"", walked, with_caches):
        try:
            _classify(top, code, path, entry, walked)
        except FileNotFoundError:  # removed during the walk
            continue
        except OSError as error:
            walked.skip(path, os.strerror(error.errno or 0))
    return walked


def _walk(top: bytes, folder: bytes, walked: Walk, with_caches: bool) -> Iterator[Tuple[bytes, os.stat_result]]:
    pending = [folder]
    while pending:
        folder = pending.pop()
        for name in _names(top, folder, walked):
            path = os.path.join(folder, name)
            try:
                entry = os.lstat(os.path.join(top, path))
            except FileNotFoundError:
                continue
            except OSError as error:
                walked.skip(path, os.strerror(error.errno or 0))
                continue
            is_folder = stat.S_ISDIR(entry.st_mode)
            if path == words.WORKSPACE_PRIVATE.encode():
                continue
            if not with_caches and _is_cache(top, path, is_folder):
                walked.caches.append(to_wire(path) + ("/" if is_folder else ""))
            elif is_folder:
                pending.append(path)
            else:
                yield path, entry


def _names(top: bytes, folder: bytes, walked: Walk) -> List[bytes]:
    try:
        return sorted(os.listdir(os.path.join(top, folder)))
    except (FileNotFoundError, NotADirectoryError):  # removed or replaced during the walk
        return []
    except OSError as error:
        walked.skip(folder + b"/", os.strerror(error.errno or 0))
        return []


def _is_cache(top: bytes, path: bytes, is_folder: bool) -> bool:
    name = os.path.basename(path)
    if not is_folder:
        return matches(name, CACHE_FILES)
    if name in CACHES:
        return True
    full = os.path.join(top, path)
    if os.path.lexists(os.path.join(full, b"pyvenv.cfg")):
        return True
    try:
        with open_regular(os.path.join(full, b"CACHEDIR.TAG")) as file:  # a pipe would block for ever
            return file.read(len(_CACHE_TAG)) == _CACHE_TAG
    except OSError:
        return False


def _classify(top: bytes, code: bytes, path: bytes, entry: os.stat_result, walked: Walk) -> None:
    full, before = os.path.join(top, path), os.path.join(code, path)
    if stat.S_ISLNK(entry.st_mode):
        target = os.readlink(full)
        if os.path.islink(before) and os.readlink(before) == target:
            return
        inside = inward_target(top, path, target)
        if inside is None:
            walked.skip(path, "a link that points outside the workspace, to " + to_wire(target), lost=False)
        else:
            walked.links.append((path, to_wire(inside)))
    elif not stat.S_ISREG(entry.st_mode):
        walked.skip(path, "a socket, pipe or device", lost=False)
    elif not _same_content(full, entry, before):
        walked.files.append((path, entry))


def inward_target(top: bytes, path: bytes, target: bytes) -> Optional[bytes]:
    """Return the target of the link `path`, relative to the link's folder, or None when it points outside the
    workspace.

    An absolute target may name the workspace as the container sees it or as the host does.
    """
    if target.startswith(b"/"):
        for base in (words.WORKSPACE_MOUNT.encode(), top):
            if os.path.normpath(target) == base or os.path.normpath(target).startswith(base + b"/"):
                inner = os.path.relpath(os.path.normpath(target), base)
                break
        else:
            return None
    else:
        inner = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if inner == b".." or inner.startswith(b"../"):
        return None
    return os.path.relpath(inner, os.path.dirname(path) or b".")


def _same_content(full: bytes, entry: os.stat_result, before: bytes) -> bool:
    try:
        code = os.lstat(before)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(code.st_mode) or code.st_size != entry.st_size:
        return False
    return code.st_mtime_ns == entry.st_mtime_ns or _equal_bytes(full, before)


def _equal_bytes(path: bytes, other: bytes) -> bool:
    written = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(written, "rb") as left, open(other, "rb") as right:
        while True:
            a, b = left.read(_BLOCK), right.read(_BLOCK)
            if a != b:
                return False
            if not a:
                return True


def grows(path: bytes) -> bool:
    """Return whether programs only append to a file of this name."""
    return matches(os.path.basename(path), _GROWING)


def rank(path: bytes, size: int) -> int:
    """Return the place in the order of the fetch: 0 comes first."""
    name = os.path.basename(path).lower()
    if matches(name, _METRICS):
        return METRICS
    if to_wire(name).endswith(_CHECKPOINTS):
        words_in_name = re.split(rb"[^a-z]+", name)
        if b"best" in words_in_name:
            return BEST
        return LAST if b"last" in words_in_name else CHECKPOINT if size > SMALL_BYTES else SMALL
    return SMALL if size <= SMALL_BYTES else LARGE


def free_names(workspace: str, wanted: Tuple[str, ...]) -> Dict[str, str]:
    """Return names at the top of the fetched folder, for files from outside the workspace, that no file of the
    workspace has.

    The comparison ignores case: a laptop's disk may not distinguish `Outside` from `outside`.
    """
    try:
        taken: Set[str] = {to_wire(name).lower() for name in os.listdir(os.fsencode(workspace))}
    except FileNotFoundError:
        taken = set()
    chosen = {}
    for name in wanted:
        free = name
        while free in taken:
            free += "_"
        chosen[name] = free
    return chosen


def digest(files: Iterable[OutputFile]) -> str:
    """Return a text that changes when one of these `file_entry`s or links is added, removed, or written to."""
    # ascii: no name can make two entries look like others
    lines = (
        ascii([file["as"], file["path"], file["link"], file["size"], file["mtime_ns"], file["ctime_ns"], file["inode"]])
        for file in files
    )
    sha = hashlib.sha256()
    for line in sorted(lines):
        sha.update(line.encode() + b"\n")
    return sha.hexdigest()[:32]


def file_entry(path: bytes, destination: bytes, entry: os.stat_result, turn: int, growing: bool) -> OutputFile:
    return {
        "path": to_wire(path),
        "as": to_wire(destination),
        "size": entry.st_size,
        "mtime_ns": entry.st_mtime_ns,
        "ctime_ns": entry.st_ctime_ns,
        "inode": entry.st_ino,
        "link": None,
        "rank": turn,
        "grows": growing,
        "writing": None,
    }
