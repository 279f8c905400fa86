"""Print tracebacks with the notebook's cell and its line, instead of a line of the converted script."""

import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any, Optional, Sequence, Set, Tuple, Type

from .shown import end_of_cell

_MARKER = re.compile(r"# %% cell (\d+)$")
_HERE = os.path.dirname(os.path.abspath(__file__))
# The call that the conversion adds around a cell's last expression.
_SHOWN = re.compile(r"__gpurun__\.show\((.*)\)(\s*(?:#.*)?)$")


class _State:
    script = ""
    notebook = ""
    lines: Sequence[str] = ()


def begin(script: str, notebook: str) -> None:
    _State.script, _State.notebook = os.path.abspath(script), notebook
    with open(script, encoding="utf-8") as file:
        _State.lines = file.read().split("\n")
    sys.excepthook = print_traceback


def print_traceback(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """Replace `sys.excepthook`."""
    end_of_cell()
    sys.stdout.flush()
    exception = traceback.TracebackException(kind, error, trace)
    _rename_frames(exception, set())
    for part in exception.format():
        sys.stderr.write(part)
    sys.stderr.flush()


def place_of(line: int) -> Optional[Tuple[int, int]]:
    """Return (cell, line in it) of a line of the script; None above the first cell."""
    for index in range(min(line, len(_State.lines)) - 1, -1, -1):
        marker = _MARKER.match(_State.lines[index])
        if marker:
            return int(marker.group(1)), line - index - 2  # the marker, and the call below it
    return None


def _rename_frames(exception: traceback.TracebackException, seen: Set[int]) -> None:
    if id(exception) in seen:
        return
    seen.add(id(exception))
    exception.stack[:] = [frame for frame in map(_renamed, exception.stack) if frame is not None]
    inner = [exception.__cause__, exception.__context__, *(getattr(exception, "exceptions", None) or [])]
    for each in inner:
        if each is not None:
            _rename_frames(each, seen)


def _renamed(frame: traceback.FrameSummary) -> Any:
    """Return the frame with its cell as the file name; None for a frame of this package."""
    path = os.path.abspath(frame.filename)
    if os.path.dirname(path) == _HERE:
        return None
    where = place_of(frame.lineno or 0) if path == _State.script else None
    if where is None:
        return frame
    shown = _SHOWN.sub(r"\1\2", frame.line or "")
    name = "%s, cell %d" % (_State.notebook, where[0])
    return traceback.FrameSummary(name, where[1], frame.name, lookup_line=False, line=shown)
