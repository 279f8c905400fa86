"""Whether what a fetch brought is still here: the list of its files, written once everything had come."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurun.agent.files import write_atomically
from gpurun.fetch.destination import CUT
from gpurun.fetch.plan import PRIVATE

if TYPE_CHECKING:
    from gpurun.fetch.destination import Destination
    from gpurun.fetch.plan import Item

_NAME = "whole.json"


def note(destination: Destination, items: Iterable[Item], stamp: str) -> None:
    """Write down where each of `items` lies now, which together are what the host's `stamp` stands for."""
    files = [_placed(destination.state, item) for item in items if item.link is None]
    text = json.dumps({"run": destination.run, "stamp": stamp, "files": files})
    write_atomically(str(destination.private / _NAME), text.encode())


def _placed(state: Mapping[str, Mapping[str, Any]], item: Item) -> list[Any] | None:
    """[path below the destination, size, mtime in ns]; None for what was not placed as the host has it."""
    known = (state.get(item.to), state.get(item.to + CUT))
    found = next((one for one in known if one is not None and one["host"] == item.stamp), None)
    return None if found is None else [found["at"], *found["here"][:2]]


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
