"""Find the host's disks that keep data over a reboot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional, Tuple

from .. import vocabulary as words
from . import facts

if TYPE_CHECKING:
    from ..schema.host import LastingDisk

# File systems that are on a disk of this host and keep their data over a reboot.
LASTING = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs")

_NOT_FOR_DATA = ("/boot", "/efi", "/etc", "/usr", "/var/lib/docker", "/snap", "/nix", "/proc", "/sys", "/dev")


def lasting(mounts: str, user: str) -> List[LastingDisk]:
    """Return a folder of this user on each lasting disk, the one with most free space first: `{path, type, free, total,
    inodes...}`.

    `mounts`: the text of /proc/self/mountinfo. A disk that is mounted at several places is listed once.
    """
    by_device: Dict[int, LastingDisk] = {}
    for place, kind, options in parse(mounts):
        system = any(place == name or place.startswith(name + "/") for name in _NOT_FOR_DATA)
        if kind not in LASTING or "ro" in options or system or not os.path.isdir(place):
            continue
        path = _own_folder(place, user)
        if path is None:
            continue
        room = facts.disk(place)
        by_device.setdefault(os.stat(place).st_dev, {"path": path, "mount": place, "type": kind, **room})
    return sorted(by_device.values(), key=lambda disk: -disk["free"])


def parse(mounts: str) -> Iterator[Tuple[str, str, List[str]]]:
    """Yield (mount point, file system, options) of each line of mountinfo, in which a space is written as \\040."""
    for line in mounts.splitlines():
        left, mark, right = line.partition(" - ")
        fields = left.split()
        if mark and len(fields) >= 6:
            place = fields[4].encode("latin-1", "replace").decode("unicode_escape")
            yield place, right.split()[0], fields[5].split(",")


def type_of(mounts: str, path: str) -> str:
    """Return the file system that `path` is on, or "" when it is unknown."""
    path = os.path.realpath(path)
    best, kind = "", ""
    for place, its_kind, _ in parse(mounts):
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):  # a later mount on the same place hides the earlier one
            best, kind = place, its_kind
    return kind


def read_mounts() -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _own_folder(place: str, user: str) -> Optional[str]:
    """Return where this user could keep gpurun's files on the disk at `place`, or None when the user may write nowhere
    there.
    """
    for owned in (user, os.path.join("home", user), os.path.join("users", user)):
        folder = os.path.join(place, owned)
        if os.path.isdir(folder) and os.access(folder, os.W_OK):
            return os.path.join(folder, words.HOME)
    if os.access(place, os.W_OK):
        # All users may write here: another user may need a folder too.
        return os.path.join(place, words.HOME if os.stat(place).st_uid == os.getuid() else "gpurun-" + user)
    return None
