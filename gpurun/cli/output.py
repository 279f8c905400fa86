"""Everything that gpurun shows: results on stdout, talk on stderr.

On a terminal there are colours and lines that change; in a pipe, with NO_COLOR or TERM=dumb, plain text.
Rich is loaded when there is a bar to draw, and not before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from gpurun.errors import GpurunError, UsageError

BOLD, DIM, RED, GREEN, YELLOW, BLUE, CYAN = "1", "2", "31", "32", "33", "34", "36"
PIPE_INTERVAL = 10.0  # seconds between two lines of progress where nothing can be redrawn
BAR_AFTER = 0.4  # seconds before a bar is worth drawing
_ERASE = "\r\x1b[2K"


class Declined(GpurunError):
    """The person said no. Nothing was done."""


# --- what the terminal can do


def interactive() -> bool:
    """Whether we may ask somebody."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "", None)


def styled(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """`text` in these styles where `stream` (stderr unless told) can show them."""
    if not styles or os.environ.get("NO_COLOR") or not _can_redraw(stream or sys.stderr):
        return text
    return f"\x1b[{';'.join(styles)}m{text}\x1b[0m"


def width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


# --- lines


def out(text: str) -> None:
    """A line of the result."""
    _clear_activity()
    print(text, flush=True)


def out_bytes(data: bytes) -> None:
    """Raw bytes of the result, such as a job's log."""
    _clear_activity()
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def json(value: Any) -> None:
    """One JSON document on stdout."""
    from json import dumps

    out(dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)


def say(text: str) -> None:
    """A line for the person who waits."""
    _clear_activity()
    print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """A line of less importance."""
    say(styled(text, DIM))


def warn(text: str) -> None:
    say(styled("warning: ", YELLOW, BOLD) + text)


def next_step(command: str, why: str = "") -> None:
    """A command that may be typed next."""
    say(f"  {styled(command, CYAN)}" + (f"  {styled(why, DIM)}" if why else ""))


# --- tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]], shrink: int | None = None) -> None:
    """Aligned columns on stdout. On a terminal cells of column `shrink` are cut until a row fits."""
    widths = [max(visible(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    if shrink is not None and sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - width()
        widths[shrink] = max(widths[shrink] - max(over, 0), 8)
    for index, row in enumerate((header, *rows)):
        cells = [_fit(cell, widths[at], at == len(widths) - 1) for at, cell in enumerate(row)]
        line = "  ".join(cells).rstrip()
        out(styled(line, DIM, stream=sys.stdout) if index == 0 else line)


def visible(cell: str) -> int:
    """How many columns a cell takes, colours aside."""
    return len(_without_styles(cell))


def _without_styles(cell: str) -> str:
    if "\x1b" not in cell:
        return cell
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", cell)


def _fit(cell: str, room: int, last: bool) -> str:
    size = visible(cell)
    if size > room:
        return cut(_without_styles(cell), room)
    return cell if last else cell + " " * (room - size)


def cut(text: str, room: int) -> str:
    """`text` in at most `room` columns, the middle left out."""
    if len(text) <= room:
        return text
    head = (room - 1) // 2
    return text[: room - 1 - head] + "…" + (text[-head:] if head else "")


# --- questions


def confirm(question: str, *, yes: bool, otherwise: str) -> None:
    """Go on only with a yes: `-y`, or an answer on a terminal. `otherwise`: what to type elsewhere."""
    if yes:
        return
    if not interactive():
        raise UsageError(f"{question} Nobody can be asked here.", otherwise)
    _clear_activity()
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("nothing was done", otherwise)


# --- what goes on now


class _Activity:
    """A line that says what goes on. It is redrawn on a terminal, and printed once a change elsewhere."""

    def __init__(self, text: str) -> None:
        self._text = ""
        self._began = time.monotonic()
        self._redraw = _can_redraw(sys.stderr)
        self._lock = threading.Lock()
        self._shown = False
        self(text)

    def __call__(self, text: str) -> None:
        with self._lock:
            if text == self._text:
                return
            self._text = text
            if self._redraw:
                self._draw()
            elif text:
                print(text, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        line = cut(self._text, width() - 4)
        sys.stderr.write(f"{_ERASE}{styled('·', CYAN, BOLD)} {line} " if line else _ERASE)
        sys.stderr.flush()
        self._shown = bool(line)

    def clear(self) -> None:
        with self._lock:
            if self._shown:
                sys.stderr.write(_ERASE)
                sys.stderr.flush()
                self._shown = False


_activities: list[_Activity] = []


def _clear_activity() -> None:
    for activity in _activities:
        activity.clear()


@contextlib.contextmanager
def activity(text: str = "") -> Iterator[Callable[[str], None]]:
    """A status line for as long as the block runs; what it yields changes the line."""
    line = _Activity(text)
    _activities.append(line)
    try:
        yield line
    finally:
        line.clear()
        _activities.remove(line)


class _Transfer:
    """Bytes on their way: a bar with bytes, rate and time left, or a line now and then in a pipe."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._began = time.monotonic()
        self._said = self._began
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if _can_redraw(sys.stderr):
            if self._bar is None and now - self._began >= BAR_AFTER:
                _clear_activity()
                self._bar = _bar()
                self._bar.start()
                self._task = self._bar.add_task(self._label, total=total or None)
            if self._bar is not None:
                self._bar.update(self._task, completed=done, total=max(total, done) or None)
        elif now - self._said >= PIPE_INTERVAL:
            self._said = now
            say(f"{self._label}: {size(done)} of {size(total)}, {size(done / (now - self._began))}/s")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=None),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
    )
    return progress.Progress(*columns, console=Console(stderr=True), transient=True, expand=True)


@contextlib.contextmanager
def transfer(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for a transfer: call what it yields with (bytes done, bytes in all)."""
    progress = _Transfer(label)
    try:
        yield progress
    finally:
        progress.close()


# --- numbers for people


def size(count: float) -> str:
    """Bytes as disks are sold: 1 GB is 10^9."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 99.5 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Two units at most: 45s, 5m 10s, 2h 05m, 3d 4h."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def ago(moment: float, now: float | None = None) -> str:
    """How long it is since `moment` (unix seconds), in one unit where that is enough: 40s, 5m, 3h, 2d."""
    passed = max((time.time() if now is None else now) - moment, 0)
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= seconds:
            return f"{int(passed // seconds)}{unit}"
    return f"{int(passed)}s"


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 file`, `3 files`."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


# --- failures


def print_error(what: str, where: str, next_step: str) -> None:
    """`error: what`, where it was, and what to do, on stderr."""
    lines = [styled("error: ", RED, BOLD) + what]
    lines += [f"  {line}" for line in where.splitlines()]
    if next_step:
        first, *more = next_step.splitlines()
        lines.append(styled("next: ", CYAN, BOLD) + first)
        lines += [f"      {line}" for line in more]
    say("\n".join(lines))


def print_traceback(error: BaseException) -> None:
    import traceback

    say("".join(traceback.format_exception(error)).rstrip())


def write_bug_log(args: Sequence[str], error: BaseException) -> Path:
    """Keep what a bug report needs; the values of `-e` are left out."""
    import platform
    import tempfile
    import traceback

    from gpurun import __version__

    shown = [a.split("=", 1)[0] + "=***" if "=" in a else a for a in args]
    text = (
        f"gpurun {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"arguments: {shown!r}\n\n{''.join(traceback.format_exception(error))}"
    )
    handle, name = tempfile.mkstemp(prefix="gpurun-bug-", suffix=".log")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
    return Path(name)


def show_commands() -> None:
    """--debug: every command that is run, on stderr."""
    import logging

    class ToStderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    logger = logging.getLogger("gpurun")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(ToStderr())
