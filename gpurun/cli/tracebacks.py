"""Show the lines of a traceback on a terminal. Pure."""

from __future__ import annotations

import re

from gpurun.agent import vocabulary as words
from gpurun.cli.terminal import cut, cut_end, visible

_FRAME = re.compile(r'(  File ")([^"]+)(", line \d+.*)')
# What a path begins with that tells nothing: the run's workspace, where packages are installed, Python's own modules.
_COMMON = re.compile(
    rf"(?:/.*/runs/{words.RUN_ID}/workspace|{words.WORKSPACE_MOUNT}|/.*/(?:site|dist)-packages|/.*/lib/python3\.\d+)/"
)


def fit(line: str, room: int) -> str:
    """Return `line` in at most `room` columns; a frame's file as a path in the project, or in its package."""
    frame = _FRAME.fullmatch(line)
    if frame is not None:
        return cut(f"{frame[1]}{short(frame[2])}{frame[3]}", room)
    # The code and the marks below it lose their ends, so that they still stand below one another.
    return cut_end(line, room) if line.startswith("    ") else cut(line, room)


def short(path: str) -> str:
    """Return the path of a module without what is the same for all of its kind."""
    common = _COMMON.match(path)
    return path[common.end() :] if common is not None else path


def is_marks_alone(line: str, room: int) -> bool:
    """Tell whether a line has nothing but marks (`^^^`), none of them within `room` columns."""
    return visible(line) > room and not line[: room - 1].strip() and set(line.strip()) <= set("^~")
