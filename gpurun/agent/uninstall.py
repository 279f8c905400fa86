"""Find and remove the files that gpurun created on a host, and leave the user's files.

In a folder of gpurun's own (`.gpurun`) all that has one of gpurun's names is gpurun's, but for what is among its runs and is
none: that may be a run whose job.json is lost, and nobody has looked at what it wrote. A root that gpurun 0.1.0 used as it was
named may hold the user's files under the same names: of such a root only what is recognised goes, and no data.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, Iterator, List

from . import vocabulary as words
from .files import remove_tree
from .paths import HALF_RUN, REMOVED_RUN, HostPaths

if TYPE_CHECKING:
    from .schema.files import MeasuredData, Stays

# The names in cache/ that gpurun gives.
CACHE = ("about", "engine-limits.json", "environments", "facts.json", "jobs", "layers", "pushed", "snapshots", "warm")
_FOLDERS = ("agent", "cache", "data", "runs", "secrets")
_AGENT = r"[0-9a-f]{16}|\.(new|old)-.*"
_ID_FILE = r"(root-id|%s)(\.[0-9a-f]{8})?" % words.HOST_ID_FILE  # also one that was half made

CHANGED = "it has changed since it was looked at"


@dataclass
class Outcome:
    """What stays: `left` could not be removed, `kept` is not to be. Each has `path` and `why`."""

    left: List[Stays] = field(default_factory=list)
    kept: List[Stays] = field(default_factory=list)

    def keep(self, path: str, why: str) -> None:
        self.kept.append({"path": path, "why": why})

    def leave(self, path: str, error: OSError) -> None:
        self.left.append({"path": path, "why": os.strerror(error.errno or 0)})


# --- data


def data_folders(host: HostPaths) -> Dict[str, MeasuredData]:
    """Return `{files, bytes, stamp}` of each data folder that may be removed and is not empty (each run makes an empty one)."""
    if not host.is_own or os.path.islink(_data(host)):
        return {}
    return {name: measure(host.data(name)) for name in _names(_data(host)) if not _is_empty(host.data(name))}


def measure(path: str) -> MeasuredData:
    """Walk a folder. The `stamp` is another one when a file was added, removed, renamed or written to since."""
    files = size = marks = 0
    for entry in _walk(path):
        try:
            found = os.lstat(entry)
        except OSError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            files += 1
            size += found.st_size
        # Not the newest time of all: a file may bear one of the future, and then no other would count.
        told = "%s\0%d\0%d\0%d" % (os.path.relpath(entry, path), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        marks += int.from_bytes(hashlib.sha256(os.fsencode(told)).digest()[:8], "big")  # a sum: in whatever order
    return {"files": files, "bytes": size, "stamp": "%d.%d.%016x" % (files, size, marks % (1 << 64))}


def _walk(path: str) -> Iterator[str]:
    yield path
    for folder, folders, names in os.walk(path) if not os.path.islink(path) else ():
        for name in folders + names:
            yield os.path.join(folder, name)


def _data(host: HostPaths) -> str:
    return host.data("").rstrip("/")


def _is_empty(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:  # a file, unreadable, or a link that leads nowhere
        return False


# --- what is not gpurun's


def foreign(host: HostPaths) -> List[str]:
    """Return the paths that lie where gpurun's do and that gpurun did not make, or cannot tell that it did."""
    if host.is_own:
        linked = [os.path.realpath(_data(host))] if os.path.islink(_data(host)) and not _is_empty(_data(host)) else []
        beside = [os.path.join(host.root, name) for name in _names(host.root) if not _is_name_of_ours(name)]
        return beside + _not_made(host, "runs") + linked
    return [path for folder in _FOLDERS for path in _not_made(host, folder)]


def _not_made(host: HostPaths, folder: str) -> List[str]:
    above = os.path.join(host.root, folder)
    return [os.path.join(above, name) for name in _names(above) if not _is_made(host, folder, name)]


def _is_name_of_ours(name: str) -> bool:
    return name in (*_FOLDERS, words.LOCKS) or name == "lost+found" or re.fullmatch(_ID_FILE, name) is not None


def _is_made(host: HostPaths, folder: str, name: str) -> bool:
    """Tell whether gpurun made `name` in one of its folders, which others may use too."""
    if folder == "agent":
        return re.fullmatch(_AGENT, name) is not None
    if folder == "cache":
        return name in CACHE
    if folder == "secrets":
        return re.fullmatch(words.RUN_ID, name) is not None
    if folder == "runs":
        is_run = re.fullmatch(words.RUN_ID, name) and os.path.exists(host.run(name).job)
        return bool(is_run) or name.startswith((HALF_RUN, REMOVED_RUN))
    return folder == "data" and _is_empty(host.data(name))


# --- removal


def remove_ours(host: HostPaths, outcome: Outcome) -> None:
    """Remove what gpurun made in its root besides runs, data and agent."""
    for folder in ("secrets", "cache"):
        if host.is_own:
            remove(os.path.join(host.root, folder), outcome)
        else:
            _remove_made(host, folder, outcome)
    for name in _names(host.root):
        if re.fullmatch(_ID_FILE, name):
            remove(os.path.join(host.root, name), outcome)


def _remove_made(host: HostPaths, folder: str, outcome: Outcome) -> None:
    above = os.path.join(host.root, folder)
    for name in _names(above):
        if _is_made(host, folder, name):
            remove(os.path.join(above, name), outcome)
    remove_if_empty(above)


def remove_data(host: HostPaths, agreed: Dict[str, str], outcome: Outcome) -> None:
    """Remove the data folders that are as they were when that was agreed to (`stamp` by name)."""
    for name in _names(_data(host)):
        path = host.data(name)
        if _is_empty(path) or (name in agreed and measure(path)["stamp"] == agreed[name]):
            remove(path, outcome)
        else:
            outcome.keep(path, CHANGED)
    remove_if_empty(_data(host))


def remove_empty_data(host: HostPaths) -> None:
    """Remove what runs made for their projects and never filled."""
    for name in _names(_data(host)):
        remove_if_empty(host.data(name))
    remove_if_empty(_data(host))


def remove_half_runs(host: HostPaths, outcome: Outcome) -> None:
    """Remove runs that were half made or half removed, and the folder of the runs if nothing else is in it."""
    left = {one["path"] for one in outcome.left}
    for name in _names(host.runs):
        path = os.path.join(host.runs, name)
        if name.startswith((HALF_RUN, REMOVED_RUN)) and path not in left:
            remove(path, outcome)
    remove_if_empty(host.runs)


def remove_agents(hosts: List[HostPaths], spared: List[HostPaths], outcome: Outcome) -> None:
    """Remove the agent, this program, wherever it was brought to but in the `spared` roots. Nothing of it can be imported afterwards."""
    for host in hosts:
        if host.is_own:
            remove(host.agents, outcome)
            remove_if_empty(host.root)
        else:
            _remove_made(host, "agent", outcome)
    in_use = [os.path.realpath(host.agents) for host in spared]
    for folder in _running_from():
        if os.path.realpath(folder) in in_use:
            continue
        for name in _names(folder):
            if re.fullmatch(_AGENT, name):
                remove(os.path.join(folder, name), outcome)
        remove_if_empty(folder)


def _running_from() -> List[str]:
    """Return the folder of the agents that this one is in, if it was brought to a host."""
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [os.path.dirname(place)] if re.fullmatch(_AGENT, os.path.basename(place)) else []


def remove(path: str, outcome: Outcome) -> None:
    """Remove a file, a tree, or a link and not what it leads to. What cannot be removed is noted."""
    if os.path.islink(path):
        outcome.keep(os.path.realpath(path), "%s is a link to it" % path)
    if os.path.isdir(path) and not os.path.islink(path):

        def note(failed: str, error: OSError) -> None:
            if error.errno != errno.ENOTEMPTY:
                outcome.leave(failed, error)

        before = len(outcome.left)
        remove_tree(path, note)
        if os.path.isdir(path) and len(outcome.left) == before:  # something came into it meanwhile
            outcome.leave(path, OSError(errno.ENOTEMPTY, ""))
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        outcome.leave(path, error)


def remove_if_empty(path: str) -> None:
    """Remove a folder, or a link to one, when nothing is in it. A mount point stays, and so does what a link leads to."""
    with suppress(OSError):
        if os.path.islink(path) and not os.listdir(path):
            os.unlink(path)
        else:
            os.rmdir(path)


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
