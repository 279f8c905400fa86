"""`data_folders`: list the lasting data folders of this host, and remove one: `{remove: NAME or absent}` ->
`{folders: [{name, path, bytes, files, counted, began, pushed, used_by}], freed, left: [paths that could not be removed]}`.

`began` and `pushed` are the unix seconds at which the last push began and the last complete push ended. `counted` is false
where there was no time to count every file. A folder that a live run uses is not removed (AgentError `live`).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from typing import TYPE_CHECKING, List, Optional, Tuple

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json, remove
from ..paths import HostPaths, RunPaths
from ..state import jobs, journal
from .data import NAME

if TYPE_CHECKING:
    from ..schema.answers import DataFoldersAnswer
    from ..schema.files import DataFolder, PushNote
    from ..schema.requests import DataFoldersRequest

COUNT_WITHIN = 20.0  # seconds for all folders together


def answer(request: DataFoldersRequest, host: HostPaths) -> DataFoldersAnswer:
    freed = 0
    left: List[str] = []
    if request.get("remove") is not None:
        freed, left = _remove(host, str(request["remove"]))
    until = time.monotonic() + COUNT_WITHIN
    live = _live(host)
    return {"folders": [_folder(host, name, live, until) for name in _names(host)], "freed": freed, "left": left}


def _names(host: HostPaths) -> List[str]:
    try:
        names_here = sorted(os.listdir(host.data("")))
    except FileNotFoundError:
        return []
    return [name for name in names_here if re.fullmatch(NAME, name) and os.path.isdir(host.data(name))]


def _folder(host: HostPaths, name: str, live: List[RunPaths], until: float) -> DataFolder:
    path = host.data(name)
    size, files, counted = count(path, until)
    note: Optional[PushNote] = read_json(host.push_note(name))
    return {
        "name": name,
        "path": path,
        "bytes": size,
        "files": files,
        "counted": counted,
        "began": note.get("began") if note is not None else None,
        "pushed": note.get("pushed") if note is not None else None,
        "used_by": [run.id for run in live if uses(run, name)],
    }


def count(path: str, until: float = float("inf")) -> Tuple[int, int, bool]:
    """Return bytes and files below `path`, and whether all were counted before the monotonic time `until`."""
    size = files = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
            files += 1
        if time.monotonic() > until:
            return size, files, False
    return size, files, True


def _live(host: HostPaths) -> List[RunPaths]:
    return sorted((run for run in host.all_runs() if not os.path.exists(run.exit)), key=lambda run: run.id)


def uses(run: RunPaths, name: str) -> bool:
    """Return whether a run may use the data folder. An unreadable run may."""
    try:
        if not journal.fold(run).live:
            return False
        job = jobs.of_attempt_or_empty(run)
        places = [os.path.expanduser(str(mount["source"])) for mount in job["mounts"]]
        places.append(run.host.data(job["project"]["name"]))
    except Exception:  # noqa: BLE001 (an unreadable run protects what it may use)
        return True
    folder = os.path.realpath(run.host.data(name))
    return any(_overlap(os.path.realpath(place), folder) for place in places)


def _overlap(path: str, other: str) -> bool:
    return os.path.commonpath([path, other]) in (path, other)


def _remove(host: HostPaths, name: str) -> Tuple[int, List[str]]:
    """Remove the folder. Return the bytes that were freed, and what could not be removed."""
    path = host.data(name)
    if re.fullmatch(NAME, name) is None or not os.path.isdir(path):
        what = "the host has no data folder %r" % name
        raise AgentError(error_codes.NO_DATA, what, "gpurun data ls", exit_code=words.EXIT_USAGE)
    _refuse_used(host, name)
    # Rename it first: a job that starts in the meantime finds the whole folder or none.
    gone = host.data(".gone-%s-%s" % (name, secrets.token_hex(4)))
    os.rename(path, gone)
    try:
        _refuse_used(host, name)
    except AgentError:
        if not os.path.lexists(path):
            os.rename(gone, path)
        raise
    before = count(gone)[0]
    if os.path.islink(gone):
        os.unlink(gone)
    else:
        shutil.rmtree(gone, ignore_errors=True)
    remove(host.push_note(name))
    stays = os.path.lexists(gone)
    return before - (count(gone)[0] if stays else 0), [gone] if stays else []


def _refuse_used(host: HostPaths, name: str) -> None:
    users = [run.id for run in _live(host) if uses(run, name)]
    if users:
        what = "the data folder %s is used by the live run%s %s" % (name, "s" * (len(users) > 1), ", ".join(users))
        next_step = "gpurun stop %s, or wait for the end: gpurun wait %s" % (" ".join(users), " ".join(users))
        raise AgentError(error_codes.LIVE, what, next_step, exit_code=words.EXIT_USAGE)
