"""What goes on now: a status line, and a bar for bytes on their way. Rich is loaded when there is a bar to draw."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from gpurun.cli.terminal import (
    BOLD,
    CYAN,
    can_redraw,
    cut,
    duration,
    harmless_line,
    harmless_output,
    size,
    styled,
    width,
)

PIPE_INTERVAL = 10.0  # seconds between two lines of progress where nothing can be redrawn
BAR_AFTER = 0.4  # seconds before a bar is worth drawing
_ERASE = "\r\x1b[2K"
Line = TypeVar("Line", bound="_Line")
_shown: list[_Line] = []  # what stands in the last line of the terminal


class _Line(Protocol):
    def clear(self) -> None: ...


def clear() -> None:
    """Make room for a line that stays."""
    for line in _shown:
        line.clear()


def _clear_others(mine: Any) -> None:
    for line in _shown:
        if line is not mine:
            line.clear()


class _Activity:
    """A line that says what goes on. It lives on a terminal alone: it is of no use in a file."""

    def __init__(self, text: str) -> None:
        self._text = ""
        self._redraw = can_redraw(sys.stderr)
        self._lock = threading.Lock()
        self._drawn = False
        self(text)

    def __call__(self, text: str) -> None:
        with self._lock:
            if text == self._text:
                return
            self._text = text
            if self._redraw:
                _clear_others(self)
                self._draw()

    def _draw(self) -> None:
        line = cut(harmless_line(self._text), width() - 4)
        # The cursor stands at its beginning: what ssh itself says, or asks for, comes in its place and not behind it.
        sys.stderr.write(f"{_ERASE}{styled('·', CYAN, BOLD)} {line}\r" if line else _ERASE)
        sys.stderr.flush()
        self._drawn = bool(line)

    def clear(self) -> None:
        with self._lock:
            if self._drawn:
                sys.stderr.write(_ERASE)
                sys.stderr.flush()
                self._drawn = False
                self._text = ""


@contextlib.contextmanager
def _standing(line: Line) -> Iterator[Line]:
    """Let it stand in the terminal's last line for as long as the block runs."""
    _shown.append(line)
    try:
        yield line
    finally:
        line.clear()
        _shown.remove(line)


def activity(text: str = "") -> contextlib.AbstractContextManager[Callable[[str], None]]:
    """A status line for as long as the block runs; what it yields changes the line."""
    return _standing(_Activity(text))


class Bar(Protocol):
    """Told how far a transfer is: bytes done, bytes in all (0: not known), and what is known better than by dividing."""

    def __call__(self, done: int, total: int, *, fraction: float | None = None, rate: float | None = None) -> None: ...


class _Transfer:
    """Bytes on their way: a bar with bytes, rate and time left, or a line now and then in a pipe."""

    def __init__(self, label: str) -> None:
        self._label = harmless_line(label)
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, done: int, total: int, *, fraction: float | None = None, rate: float | None = None) -> None:
        now = time.monotonic()
        passed = max(now - self._began, 0.001)
        part = fraction if fraction is not None else done / total if total else 0.0
        text = f"{size(done)}{f' of {size(total)}' if total else ''}, {size(rate or done / passed)}/s"
        if 0.01 < part < 1:
            text += f", {duration(passed / part - passed)} left"
        if not can_redraw(sys.stderr):
            if now - self._said >= PIPE_INTERVAL:
                self._said = now
                print(f"{self._label}: {part:.0%}, {text}", file=sys.stderr, flush=True)
        elif passed >= BAR_AFTER:
            self._show(part, text)

    def _show(self, part: float, text: str) -> None:
        if self._bar is None:
            _clear_others(self)
            self._bar = _rich_bar()
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=1.0, text=text)
        self._bar.update(self._task, completed=part, text=text)

    def clear(self) -> None:
        """Make room; the next piece of news draws it again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Steps:
    """Something made in steps elsewhere: a bar with what goes on now, or in a pipe all that is said there."""

    def __init__(self, label: str) -> None:
        self._label = harmless_line(label)
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, fraction: float, text: str, said: bytes) -> None:
        if not can_redraw(sys.stderr):
            sys.stderr.flush()
            sys.stderr.buffer.write(harmless_output(said))
            sys.stderr.buffer.flush()
            return
        if self._bar is None:
            _clear_others(self)
            self._bar = _rich_bar()
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=1.0, text="")
        passed = duration(time.monotonic() - self._began)
        self._bar.update(
            self._task, completed=fraction, text=cut(f"{harmless_line(text)}, {passed}", max(width() // 2, 20))
        )

    def clear(self) -> None:
        """Make room; the next piece of news draws it again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _rich_bar() -> Any:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),  # a name may look like markup
        progress.BarColumn(bar_width=None),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[text]}", markup=False),
    )
    # Rich would take the streams over, and with them the log and the status line.
    return progress.Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def transfer(label: str) -> contextlib.AbstractContextManager[_Transfer]:
    """A bar for a transfer, see Bar. It goes away at the block's end, and for every line that is printed."""
    return _standing(_Transfer(label))


def steps(label: str) -> contextlib.AbstractContextManager[_Steps]:
    """A bar for what is made in steps on a host. It goes away at the block's end."""
    return _standing(_Steps(label))
