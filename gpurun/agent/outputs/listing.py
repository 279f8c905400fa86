"""List the files of a run for a fetch: its workspace, gpurun's record of it, and the files that were copied out of its
containers.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, List, Tuple

from .. import file_names
from .. import vocabulary as words
from ..paths import RunPaths
from ..setup import secret_files
from ..state import completeness, journal
from . import outputs

if TYPE_CHECKING:
    from ..schema.files import OutputFile


def workspace_files(run: RunPaths, *, with_caches: bool = False) -> Tuple[outputs.Walk, List[OutputFile]]:
    """Walk the workspace.

    Return the result of the walk, and the files to fetch together with gpurun's record of the run.
    """
    names = outputs.free_names(run.workspace, (words.RECORD_FOLDER, words.OUTSIDE_FOLDER))
    outputs_found = outputs.find_outputs(run.workspace, run.snapshot, with_caches=with_caches)
    return outputs_found, [*_record(run, names[words.RECORD_FOLDER]), *_workspace(outputs_found)]


def outside_files(run: RunPaths) -> List[OutputFile]:
    """Return the files that were copied out of the run's containers."""
    return _outside(
        run, outputs.free_names(run.workspace, (words.RECORD_FOLDER, words.OUTSIDE_FOLDER))[words.OUTSIDE_FOLDER]
    )


def _record(run: RunPaths, folder: str) -> List[OutputFile]:
    """List gpurun's own record of the run, and the files in `out/` (the log, and what a plugin reported)."""
    files = []
    for path, growing in _record_paths(run):
        full = os.path.join(os.fsencode(run.root), path)
        try:
            entry = os.lstat(full)
        except OSError:
            continue
        if stat.S_ISREG(entry.st_mode):
            inner = path[len(b"out/") :] if path.startswith(b"out/") else path
            destination = os.path.join(folder.encode(), inner)
            files.append(outputs.file_entry(path, destination, entry, outputs.RECORD, growing))
    return files


def _record_paths(run: RunPaths) -> List[Tuple[bytes, bool]]:
    paths = [(os.path.basename(path).encode(), growing) for path, growing in (
        (run.job, False), (run.exit, False), (run.events, True), (run.prepare_log, True),
        (run.environment, False), (run.hooks_log, True),
    )]  # fmt: skip
    try:
        out = sorted(os.listdir(os.fsencode(run.out)))
    except OSError:
        out = []
    own = {os.path.basename(path) for path, _ in paths}
    paths += [(path, False) for path in _of_earlier_attempts(run)]
    return paths + [(b"out/" + name, True) for name in out if name != words.STOP_FILE.encode() and name not in own]


def _of_earlier_attempts(run: RunPaths) -> List[bytes]:
    numbers = range(1, journal.fold(run).attempt)
    kept = [(place.log, place.exit, place.prepare_log) for place in map(run.of_attempt, numbers)]
    return [os.path.relpath(path, run.root).encode() for paths in kept for path in paths]


def _workspace(walked: outputs.Walk) -> List[OutputFile]:
    files = [
        outputs.file_entry(b"workspace/" + path, path, entry, outputs.rank(path, entry.st_size), outputs.grows(path))
        for path, entry in walked.files
    ]
    return files + [_link(path, target) for path, target in walked.links]


def _link(path: bytes, target: str) -> OutputFile:
    return {
        "path": None,
        "as": file_names.to_wire(path),
        "size": 0,
        "mtime_ns": 0,
        "ctime_ns": 0,
        "inode": 0,
        "link": target,
        "rank": outputs.SMALL,
        "grows": False,
        "writing": None,
    }


def _outside(run: RunPaths, folder: str) -> List[OutputFile]:
    secret_files.remove_copies(run)
    walked = outputs.find_outputs(run.outside, os.devnull, with_caches=True)
    return [
        outputs.file_entry(
            b"outside/" + path,
            os.path.join(folder.encode(), path),
            entry,
            outputs.OUTSIDE,
            outputs.grows(path),
        )
        for path, entry in walked.files
    ]


def mark_writing(run: RunPaths, files: List[OutputFile], now: float) -> None:
    """Mark files that are being written, by a quick check. The hash checks thoroughly."""
    top = os.fsencode(run.root)
    watched = {}
    for file in files:
        if file["path"] is None or file["grows"] or file["rank"] in (outputs.RECORD, outputs.OUTSIDE):
            continue
        try:
            entry = os.lstat(os.path.join(top, file_names.from_wire(file["path"])))
        except OSError:
            continue
        watched[completeness.identity(entry)] = file
        if completeness.is_young(entry, now, completeness.QUIET_ZIP_SECONDS):
            file["writing"] = "it was written a moment ago"
    for identity in completeness.open_for_writing(watched):
        watched[identity]["writing"] = "a process has it open for writing"
