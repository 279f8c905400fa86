"""Find the checkpoints that the plugin had no time to list: its thread is a second or two behind a save, and dies with
SIGKILL.

Once no process of the job runs, a file of `torch.save` shows whether it was finished: it is a zip, whose directory
comes last. Such a file is added to the ledger as if the plugin had listed it, but without its metric, which only the
training knew. A half-written file has no directory, and is not added. No content of a file is executed.
"""

from __future__ import annotations

import os
import stat
import time
import traceback
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional, cast

from .. import ledger
from ..files import open_regular
from ..paths import RunPaths
from ..plugin.gpurun_lightning import checkpoint_file
from . import checkpoints, completeness, journal

if TYPE_CHECKING:
    from ..schema.checkpoint import LedgerEntry

SUFFIX = ".ckpt"
LOOKING = 20.0  # seconds: a workspace may hold a data set of a million files
MOST = 3  # the newest files; the plugin has had time to list the older ones
_LARGEST_PICKLE = 1 << 26  # bytes


def list_new(run: RunPaths) -> None:
    """List the checkpoints that the present attempt saved last. No process of its job may run any more."""
    state = journal.fold(run)
    if state.started is None or not checkpoints.has_plugin(run, state.attempt):
        return
    listed = {entry["path"]: entry for entry in ledger.read(run.ledger, run.ledger_cache)}
    new_paths = [path for path in _find_files(run.workspace) if _is_new(path, run, listed, state.started)]
    for path in sorted(new_paths, key=_changed_at, reverse=True)[:MOST][::-1]:
        try:
            entry = _make_entry(run, path, state.attempt)
            if entry is not None:
                ledger.append(run.ledger, entry)
        except Exception:  # noqa: BLE001 (the file was removed, or is a strange zip: the run ends all the same)
            traceback.print_exc()


def _find_files(workspace: str) -> Iterator[str]:
    until = time.monotonic() + LOOKING
    for folder, folders, names in os.walk(workspace):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if time.monotonic() > until:
            return
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(SUFFIX) and not os.path.islink(path):
                yield path


def _is_new(path: str, run: RunPaths, listed: Dict[str, LedgerEntry], since: float) -> bool:
    """Return whether the ledger lacks the file as it is now, and the file came neither with the project nor from an
    earlier attempt.
    """
    try:
        status, name = os.lstat(path), os.path.relpath(path, run.workspace)
        name.encode()
    except (OSError, UnicodeError):  # JSON cannot hold such a name
        return False
    entry = listed.get(name)
    listed_as = (entry.get("size"), entry.get("mtime_ns")) if entry is not None else None
    return (
        stat.S_ISREG(status.st_mode) and status.st_mtime >= since and listed_as != (status.st_size, status.st_mtime_ns)
    )


def _changed_at(path: str) -> float:
    with suppress(OSError):
        return os.lstat(path).st_mtime
    return 0.0


def _make_entry(run: RunPaths, path: str, attempt: int) -> Optional[LedgerEntry]:
    """Return None for a file that is incomplete, or that changed while it was read."""
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        if completeness.open_for_writing([completeness.identity(before)]) or not _is_complete(path, before.st_size):
            return None
        facts, digest = checkpoint_file.facts(path), checkpoints.digest(file)
        if completeness.stamp(os.lstat(path)) != completeness.stamp(before):
            return None
    entry = {
        "t": time.time(),
        "attempt": attempt,
        "path": os.path.relpath(path, run.workspace),
        **facts,
        "monitor": None,
        "mode": None,
        "value": None,
        "best": False,
        "last": False,
        "size": before.st_size,
        "sha256": digest,
        "mtime_ns": before.st_mtime_ns,
        "complete": True,
    }
    return cast("LedgerEntry", entry)


def _is_complete(path: str, size: int) -> bool:
    """Return whether the file is a zip as torch writes it.

    Nothing in it is compressed, so the check takes no longer than the file's size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts: List[zipfile.ZipInfo] = archive.infolist()
            plain = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            pickles = [part for part in parts if part.filename.endswith("/data.pkl")]
            if not plain or sum(part.file_size for part in parts) > size or len(pickles) != 1:
                return False
            # A host that lost power may have stored a file's end but not its middle.
            return pickles[0].file_size <= _LARGEST_PICKLE and archive.testzip() is None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError):
        return False
