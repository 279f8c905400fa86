"""A traceback names the notebook's cell and the line in it, not a line of the script that was made of it."""

import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any, Optional, Sequence, Set, Tuple, Type

from .shown import end_of_cell

_MARKER = re.compile(r"# %% cell (\d+)$")
_HERE = os.path.dirname(os.path.abspath(__file__))
# What the script's text has around the notebook's own.
_SHOWN = re.compile(r"__gpurun__\.show\((.*)\)(\s*(?:#.*)?)$")


class _State:
    script = ""
    notebook = ""
    lines: Sequence[str] = ()


def begin(script: str, notebook: str) -> None:
    _State.script, _State.notebook = os.path.abspath(script), notebook
    with open(script, encoding="utf-8") as file:
        _State.lines = file.read().split("\n")
    sys.excepthook = tell


def tell(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """In place of `sys.excepthook`."""
    end_of_cell()
    sys.stdout.flush()
    told = traceback.TracebackException(kind, error, trace)
    _rename(told, set())
    for part in told.format():
        sys.stderr.write(part)
    sys.stderr.flush()


def place(line: int) -> Optional[Tuple[int, int]]:
    """(cell, line in it) of a line of the script; None above the first cell."""
    for at in range(min(line, len(_State.lines)) - 1, -1, -1):
        found = _MARKER.match(_State.lines[at])
        if found:
            return int(found.group(1)), line - at - 2  # the marker, and the call below it
    return None


def _rename(told: traceback.TracebackException, seen: Set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack[:] = [frame for frame in map(_renamed, told.stack) if frame is not None]
    inner = [told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or [])]
    for one in inner:
        if one is not None:
            _rename(one, seen)


def _renamed(frame: traceback.FrameSummary) -> Any:
    """The frame under its cell's name, None for one of ours."""
    path = os.path.abspath(frame.filename)
    if os.path.dirname(path) == _HERE:
        return None
    where = place(frame.lineno or 0) if path == _State.script else None
    if where is None:
        return frame
    shown = _SHOWN.sub(r"\1\2", frame.line or "")
    name = "%s, cell %d" % (_State.notebook, where[0])
    return traceback.FrameSummary(name, where[1], frame.name, lookup_line=False, line=shown)
