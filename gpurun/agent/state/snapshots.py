"""Choose the earlier snapshots of a project that a new one is linked against, so that unchanged files are neither sent
nor stored.
"""

from __future__ import annotations

import os
from typing import Dict, List

from ..files import read_json, write_json
from ..paths import HostPaths, RunPaths


def newest(host: HostPaths, project_name: str, run: RunPaths) -> List[str]:
    """Return snapshots for rsync's --link-dest: the newest complete one, and the newest that an upload left partial.

    Without the partial one, all files are sent again after an upload that was cut off.
    """
    noted = _read(host, project_name)
    ids = [noted[kind] for kind in ("whole", "partial") if kind in noted and noted[kind] != run.id]
    paths = [host.run(run_id).snapshot for run_id in dict.fromkeys(ids)]
    return [path for path in paths if os.path.isdir(path)]


def note_partial(host: HostPaths, project_name: str, run: RunPaths) -> None:
    _note(host, project_name, "partial", run)


def note_complete(host: HostPaths, project_name: str, run: RunPaths) -> None:
    _note(host, project_name, "whole", run)


def _note(host: HostPaths, project_name: str, kind: str, run: RunPaths) -> None:
    # Two submits at once may each lose the other's note: that costs bytes on the wire, but never yields a wrong file.
    os.makedirs(os.path.dirname(host.snapshots(project_name)), exist_ok=True)
    write_json(host.snapshots(project_name), {**_read(host, project_name), kind: run.id})


def _read(host: HostPaths, project_name: str) -> Dict[str, str]:
    return dict(read_json(host.snapshots(project_name)) or {})
