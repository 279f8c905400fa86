"""Find and remove the files that gpurun created on a host, and keep the user's files.

In a folder of gpurun's own (`.gpurun`) everything with one of gpurun's names belongs to gpurun, except what is among
its runs and is not a run: it may be a run whose job.json is lost, and nobody has looked at its files. A root that
gpurun 0.1.0 used without `.gpurun` may hold the user's files under the same names: there only recognized files are
removed, and no data.
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

# The names that gpurun makes in cache/.
CACHE = ("about", "engine-limits.json", "environments", "facts.json", "jobs", "layers", "pushed", "snapshots", "warm")
_FOLDERS = ("agent", "cache", "data", "runs", "secrets")
_AGENT = r"[0-9a-f]{16}|\.(new|old)-.*"
_ID_FILE = r"(root-id|%s)(\.[0-9a-f]{8})?" % words.HOST_ID_FILE  # also a half-written file

CHANGED = "it has changed since it was listed"


@dataclass
class Outcome:
    """List what remains: `left` could not be removed, `kept` must not be removed. Each entry has `path` and `why`."""

    left: List[Stays] = field(default_factory=list)
    kept: List[Stays] = field(default_factory=list)

    def keep(self, path: str, why: str) -> None:
        self.kept.append({"path": path, "why": why})

    def leave(self, path: str, error: OSError) -> None:
        self.left.append({"path": path, "why": os.strerror(error.errno or 0)})


# --- data


def data_folders(host: HostPaths) -> Dict[str, MeasuredData]:
    """Return `{files, bytes, stamp}` of each data folder that may be removed and is not empty (each run makes an empty
    one).
    """
    if not host.is_own or os.path.islink(_data(host)):
        return {}
    return {name: measure(host.data(name)) for name in _names(_data(host)) if not _is_empty(host.data(name))}


def measure(path: str) -> MeasuredData:
    """Walk a folder. The `stamp` changes when a file is added, removed, renamed or written to."""
    files = size = marks = 0
    for entry in _walk(path):
        try:
            status = os.lstat(entry)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            files += 1
            size += status.st_size
        # Do not use the newest time: a file may have a time in the future, and then no other file would count.
        line = "%s\0%d\0%d\0%d" % (os.path.relpath(entry, path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        marks += int.from_bytes(
            hashlib.sha256(os.fsencode(line)).digest()[:8], "big"
        )  # a sum does not depend on the order
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
    except OSError:  # a file, unreadable, or a dangling link
        return False


# --- what is not gpurun's


def foreign(host: HostPaths) -> List[str]:
    """Return the paths in gpurun's places that gpurun did not make, or may not have made."""
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
    """Return whether gpurun made `name` in one of its folders, which others may use too."""
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
    """Remove what gpurun made in its root, except runs, data and agent."""
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
    """Remove the data folders that have not changed since the user agreed to remove them (`stamp` by name)."""
    for name in _names(_data(host)):
        path = host.data(name)
        if _is_empty(path) or (name in agreed and measure(path)["stamp"] == agreed[name]):
            remove(path, outcome)
        else:
            outcome.keep(path, CHANGED)
    remove_if_empty(_data(host))


def remove_empty_data(host: HostPaths) -> None:
    """Remove the empty data folders that runs made for their projects."""
    for name in _names(_data(host)):
        remove_if_empty(host.data(name))
    remove_if_empty(_data(host))


def remove_half_runs(host: HostPaths, outcome: Outcome) -> None:
    """Remove runs that were half made or half removed, and the folder of the runs when nothing else is in it."""
    left = {entry["path"] for entry in outcome.left}
    for name in _names(host.runs):
        path = os.path.join(host.runs, name)
        if name.startswith((HALF_RUN, REMOVED_RUN)) and path not in left:
            remove(path, outcome)
    remove_if_empty(host.runs)


def remove_agents(hosts: List[HostPaths], spared: List[HostPaths], outcome: Outcome) -> None:
    """Remove the agent, which is this program, from all its places except the `spared` roots.

    Afterwards no module of it can be imported.
    """
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
    """Return the folder of agents that contains this one, if this agent was sent to a host."""
    place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [os.path.dirname(place)] if re.fullmatch(_AGENT, os.path.basename(place)) else []


def remove(path: str, outcome: Outcome) -> None:
    """Remove a file, a tree, or a link (not its target). What cannot be removed is noted."""
    if os.path.islink(path):
        outcome.keep(os.path.realpath(path), "%s is a link to it" % path)
    if os.path.isdir(path) and not os.path.islink(path):

        def note(failed: str, error: OSError) -> None:
            if error.errno != errno.ENOTEMPTY:
                outcome.leave(failed, error)

        before = len(outcome.left)
        remove_tree(path, note)
        if os.path.isdir(path) and len(outcome.left) == before:  # another process put something into it
            outcome.leave(path, OSError(errno.ENOTEMPTY, ""))
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        outcome.leave(path, error)


def remove_if_empty(path: str) -> None:
    """Remove an empty folder, or a link to one. A mount point and the target of a link stay."""
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
