"""Everything that gpurun shows: results on stdout, talk on stderr.

On a terminal there are colours and lines that change; in a pipe, with NO_COLOR or TERM=dumb, plain text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpurun.agent import vocabulary as words
from gpurun.agent.sizes import size
from gpurun.cli.folding import folded
from gpurun.cli.progress import activity, clear, steps, transfer
from gpurun.cli.terminal import (
    BLUE,
    BOLD,
    CYAN,
    DIM,
    GREEN,
    RED,
    YELLOW,
    ago,
    cut,
    cut_end,
    duration,
    harmless,
    height,
    interactive,
    plural,
    styled,
    visible,
    width,
)
from gpurun.errors import GpurunError, UsageError

__all__ = [
    "BLUE", "BOLD", "CYAN", "DIM", "GREEN", "RED", "YELLOW", "Declined", "activity", "after_interrupt", "ago", "confirm", "cut",
    "cut_end", "duration", "folded", "height", "interactive", "json", "labelled", "next_step", "next_steps", "note", "out", "out_bytes", "plural", "print_error",
    "print_traceback", "say", "say_as_it_is", "say_bytes", "show_commands", "size", "steps", "styled", "table", "table_width", "transfer",
    "visible", "warn", "width", "write_bug_log",
]  # fmt: skip


class Declined(GpurunError):
    """The person said no. Nothing was done."""

    exit_code = words.EXIT_NOTHING


NARROWEST_COLUMN = 8

# --- lines


def out(text: str) -> None:
    """A line of the result."""
    clear()
    print(harmless(text), flush=True)


def out_bytes(data: bytes) -> None:
    """Raw bytes of the result, such as a job's log."""
    clear()
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say_bytes(data: bytes) -> None:
    """Raw bytes for the person: a log, or what went through `harmless_output`."""
    clear()
    sys.stderr.flush()
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


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
    """A line for the person who waits, folded where the terminal is narrow."""
    say_as_it_is(folded(text, 0, sys.stderr))


def say_as_it_is(text: str) -> None:
    """The same, not folded."""
    clear()
    print(harmless(text), file=sys.stderr, flush=True)


def after_interrupt() -> None:
    """Leave the line that the terminal has `^C` on."""
    clear()
    if sys.stderr.isatty():
        print(file=sys.stderr)


def note(text: str) -> None:
    """A line of less importance."""
    say_as_it_is(styled(folded(text, 0, sys.stderr), DIM))


def warn(text: str) -> None:
    say_as_it_is(styled("warning: ", YELLOW, BOLD) + folded(text, 9, sys.stderr))


def next_steps(*steps: tuple[str, str]) -> None:
    """Commands that may be typed next, and why: behind them, or where that is too long for the terminal, below them."""
    longest = max((len(command) for command, _ in steps), default=0)
    widest = longest + 4 + max((len(why) for _, why in steps), default=0)
    below = sys.stderr.isatty() and widest > width()
    for command, why in steps:
        room = "\n      " if below else " " * (longest - len(command) + 2)
        reason = folded(why, 6, sys.stderr) if below else why
        say_as_it_is(f"  {styled(command, CYAN)}" + (room + styled(reason, DIM) if why else ""))


def next_step(command: str, why: str = "") -> None:
    next_steps((command, why))


def labelled(name: str, text: str, column: int, *styles: str, lead: str = "") -> str:
    """`name  text` for stdout. The text begins in `column` and is folded there, but for a command, which is to be copied."""
    label = styled(name.ljust(column - len(lead) - 1), *styles, stream=sys.stdout)
    shown = text if name == "command" else folded(text, column, sys.stdout)
    return f"{lead}{label} {shown}".rstrip()


# --- tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]], shrink: Sequence[int] = ()) -> None:
    """Aligned columns on stdout. On a terminal cells of the columns `shrink` are cut, one after the other, until a row fits."""
    widths = _widths(header, rows)
    over = table_width(header, rows) - width() if sys.stdout.isatty() else 0
    for column in shrink:
        less = min(max(over, 0), max(widths[column] - NARROWEST_COLUMN, 0))
        widths[column] -= less
        over -= less
    for index, row in enumerate((header, *rows)):
        cells = [_fit(cell, widths[at], at == len(widths) - 1) for at, cell in enumerate(row)]
        line = "  ".join(cells).rstrip()
        out(styled(line, DIM, stream=sys.stdout) if index == 0 else line)


def table_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns that a row takes when nothing is cut."""
    return sum(_widths(header, rows)) + 2 * (len(header) - 1)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(visible(cell) for cell in column) for column in zip(header, *rows, strict=True)]


def _fit(cell: str, room: int, last: bool) -> str:
    cell = cut(cell, room)
    return cell if last else cell + " " * (room - visible(cell))


# --- questions


def confirm(question: str, *, yes: bool, otherwise: str) -> None:
    """Go on only with a yes: `-y`, or an answer on a terminal. `otherwise`: what to type elsewhere."""
    if yes:
        return
    if not interactive():
        raise UsageError(f"{question} Nobody can be asked here.", otherwise)
    clear()
    print(harmless(folded(f"{question} [y/N]", 0, sys.stderr)), end=" ", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("nothing was done", otherwise)


# --- failures


def print_error(what: str, where: str, next_step: str) -> None:
    """`error: what`, where it was, and what to do, on stderr."""
    lines = [styled("error: ", RED, BOLD) + folded(what, 7, sys.stderr)]
    if where:
        lines.append(f"  {folded(where, 2, sys.stderr)}")
    if next_step:
        lines.append(styled("next: ", CYAN, BOLD) + folded(next_step, 6, sys.stderr))
    say_as_it_is("\n".join(lines))


def print_traceback(error: BaseException) -> None:
    import traceback

    say_as_it_is("".join(traceback.format_exception(error)).rstrip())


def write_bug_log(args: Sequence[str], error: BaseException) -> Path | None:
    """Keep what a bug report needs; the values of `-e` are left out. None when no disk has room for it."""
    import os
    import platform
    import tempfile
    import traceback

    from gpurun import __version__

    machine = os.uname()  # `platform.platform` starts a process to find out more
    shown = [a.split("=", 1)[0] + "=***" if "=" in a else a for a in args]
    text = (
        f"gpurun {__version__}, Python {platform.python_version()}, {machine.sysname} {machine.release} {machine.machine}\n"
        f"arguments: {shown!r}\n\n{''.join(traceback.format_exception(error))}"
    )
    try:
        handle, name = tempfile.mkstemp(prefix="gpurun-bug-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
    except OSError:
        return None
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
