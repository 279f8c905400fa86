"""Parse `docker diff` and choose the paths that a script computed. These functions are pure and run no command."""

from __future__ import annotations

import re
from typing import Iterable, List, Sequence, Set, Tuple

from .. import vocabulary as words
from ..file_names import CACHE_FILES, CACHES, from_wire, matches

Change = Tuple[str, bytes]  # "A" | "C" | "D", absolute path

# Files of the engine, of the system and of package managers.
_SYSTEM = tuple(
    path.encode()
    for path in (
        "/proc", "/sys", "/dev", "/run", "/var/run", "/var/cache", "/var/lib/apt", "/var/lib/dpkg",
        "/var/log/apt", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/include",
        "/usr/share", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ssl", "/etc/apt",
        "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/hosts", "/etc/hostname",
        "/etc/resolv.conf", "/etc/mtab", "/etc/ld.so.cache", "/.dockerenv", "/root/.config",
        "/opt/conda/pkgs", "/opt/conda/bin", "/opt/conda/conda-meta",
    )
)  # fmt: skip
_INSTALLED = frozenset([b"site-packages", b"dist-packages"])
_TEMPORARY = ("pymp-*", "torchinductor_*", "torch_extensions*", ".tensorboard-info", ".X11-unix", ".ICE-unix")
_OURS = (words.WORKSPACE_MOUNT.encode(), b"/gpurun")


def parse_diff(output: bytes) -> List[Change]:
    """Parse the lines of `docker diff`. A line without a known start continues the path of the line before it."""
    changes: List[Change] = []
    for line in output.split(b"\n"):
        if re.match(rb"[ACD] /", line):
            changes.append((line[:1].decode(), line[2:]))
        elif changes and line:
            kind, path = changes[-1]
            changes[-1] = (kind, path + b"\n" + line)
    return changes


def to_copy(changes: Iterable[Change], mounts: Sequence[str]) -> List[Change]:
    """Return what `docker cp` must copy: the topmost folders and files that were added, and changed paths ("C").

    A folder with a mount below it is never copied as a whole: the engine would copy the mount with it. A "C" may be a
    folder of which only the mode was changed: the caller must ignore those, because `docker diff` does not show the
    difference.
    """
    changes = list(changes)
    parents: Set[bytes] = {parent for _, path in changes for parent in _parents(path)}
    kinds = {path: kind for kind, path in changes if kind in "AC" and is_wanted(path, mounts)}
    complete_folders = {path for path, kind in kinds.items() if kind == "A" and not _holds_mount(path, mounts)}
    chosen = []
    for path, kind in sorted(kinds.items()):
        # A changed folder, or one with a mount below it, is represented by its members, which are in the list too.
        is_copied = path in complete_folders or not (path in parents or _holds_mount(path, mounts))
        if is_copied and not any(parent in complete_folders for parent in _parents(path)):
            chosen.append((kind, path))
    return chosen


def _parents(path: bytes) -> List[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(2, len(parts))]


def _holds_mount(path: bytes, mounts: Sequence[str]) -> bool:
    return any(mount.startswith(path + b"/") for mount in (*map(from_wire, mounts), *_OURS))


def is_wanted(path: bytes, mounts: Sequence[str]) -> bool:
    """Return whether a path is not the system's, not below a mount, not a cache and not installed by a package manager."""
    for base in (*_SYSTEM, *_OURS, *(from_wire(mount).rstrip(b"/") for mount in mounts)):
        if path == base or path.startswith(base + b"/"):
            return False
    parts = path.split(b"/")[1:]
    if (_INSTALLED | CACHES) & set(parts) or matches(parts[-1], CACHE_FILES):
        return False
    return not (parts[0] == b"tmp" and len(parts) > 1 and matches(parts[1], _TEMPORARY))
