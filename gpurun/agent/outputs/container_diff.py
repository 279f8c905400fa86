"""What `docker diff` says of a container, and which of it a script computed. Pure: no question is asked here."""

from __future__ import annotations

import re
from typing import Iterable, List, Sequence, Set, Tuple

from .. import vocabulary as words
from ..file_names import CACHE_FILES, CACHES, from_wire, matches

Change = Tuple[str, bytes]  # "A" | "C" | "D", absolute path

# The engine's own, the system's, and what package managers bring.
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
    """The lines of `docker diff`. A line that begins in no known way goes on with the name before it."""
    changes: List[Change] = []
    for line in output.split(b"\n"):
        if re.match(rb"[ACD] /", line):
            changes.append((line[:1].decode(), line[2:]))
        elif changes and line:
            kind, path = changes[-1]
            changes[-1] = (kind, path + b"\n" + line)
    return changes


def to_copy(changes: Iterable[Change], mounts: Sequence[str]) -> List[Change]:
    """What to ask `docker cp` for: the topmost folders and files that were added, and what was changed ("C").

    A folder with a mount below it is never copied as one: the engine would copy the mount with it. A "C" may be a
    folder whose mode alone was changed: the taker must let those go, for nothing tells before.
    """
    changes = list(changes)
    parents: Set[bytes] = {parent for _, path in changes for parent in _parents(path)}
    known = {path: kind for kind, path in changes if kind in "AC" and is_wanted(path, mounts)}
    whole = {path for path, kind in known.items() if kind == "A" and not _holds_mount(path, mounts)}
    chosen = []
    for path, kind in sorted(known.items()):
        # A folder that was changed, or holds a mount, is told by its members, which stand in the list too.
        stands_alone = path in whole or not (path in parents or _holds_mount(path, mounts))
        if stands_alone and not any(parent in whole for parent in _parents(path)):
            chosen.append((kind, path))
    return chosen


def _parents(path: bytes) -> List[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(2, len(parts))]


def _holds_mount(path: bytes, mounts: Sequence[str]) -> bool:
    return any(mount.startswith(path + b"/") for mount in (*map(from_wire, mounts), *_OURS))


def is_wanted(path: bytes, mounts: Sequence[str]) -> bool:
    """Not the system's, not below a mount, no cache, nothing that was installed."""
    for base in (*_SYSTEM, *_OURS, *(from_wire(mount).rstrip(b"/") for mount in mounts)):
        if path == base or path.startswith(base + b"/"):
            return False
    parts = path.split(b"/")[1:]
    if (_INSTALLED | CACHES) & set(parts) or matches(parts[-1], CACHE_FILES):
        return False
    return not (parts[0] == b"tmp" and len(parts) > 1 and matches(parts[1], _TEMPORARY))
