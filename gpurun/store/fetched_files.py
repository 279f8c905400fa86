"""Whether what a fetch brought is still here: the list of its files, written once everything had come."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpurun.agent.files import write_atomically

PRIVATE = ".gpurun"  # our own folder in the destination: state, and what is on its way
_NAME = "whole.json"


def note(to: Path, run: str, stamp: str, files: Sequence[Sequence[Any] | None]) -> None:
    """Write down `files`, which together are what the host's `stamp` stands for.

    Each is [path below `to`, size in bytes, mtime in ns]; None for one that was not placed as the host has it.
    """
    text = json.dumps({"run": run, "stamp": stamp, "files": files})
    write_atomically(str(to / PRIVATE / _NAME), text.encode())


def missing(to: Path, stamp: str | None) -> int:
    """Return how many files of that fetch are not in `to` any more, or were changed there; 1 when that is not known."""
    try:
        told = json.loads((to / PRIVATE / _NAME).read_bytes())
        files = told["files"] if told["stamp"] == stamp else [None]
        return sum(not _is_there(to, file) for file in files)
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def _is_there(to: Path, file: Any) -> bool:
    if file is None:
        return False
    at, size, mtime_ns = file
    try:
        found = os.lstat(to / at)
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (size, mtime_ns)
