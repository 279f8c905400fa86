"""What goes on now: a status line, and a bar for bytes on their way. Rich is loaded when there is a bar to draw."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from gpurun.agent.sizes import size
from gpurun.cli.terminal import BOLD, CYAN, can_redraw, cut, duration, harmless_line, styled, width

PIPE_INTERVAL = 10.0  # seconds between two lines of progress where nothing can be redrawn
TEXT_WIDTH = 44  # columns behind a bar: `1.2 GB of 12.0 GB  117 MB/s  12m 30s left`
NARROWEST_BAR, WIDEST_BAR = 10, 40  # columns
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


class Say(Protocol):
    """Changes a status line. With `since`, a monotonic time, it ends with the time that has passed, which goes on."""

    def __call__(self, text: str, *, since: float | None = None) -> None: ...


class _Activity:
    """A line that says what goes on. It lives on a terminal alone: it is of no use in a file."""

    def __init__(self, text: str) -> None:
        self._text = ""
        self._since: float | None = None
        self._clock: threading.Thread | None = None
        self._redraw = can_redraw(sys.stderr)
        self._lock = threading.Lock()
        self._drawn = False
        self(text)

    def __call__(self, text: str, *, since: float | None = None) -> None:
        with self._lock:
            if text == self._text:
                return
            self._text, self._since = text, since
            if self._redraw:
                _clear_others(self)
                self._draw()
                if since is not None and self._clock is None:
                    self._clock = threading.Thread(target=self._tick, daemon=True)
                    self._clock.start()

    def _tick(self) -> None:
        """Let the time go on for as long as the line stands: whatever is printed takes it away."""
        while True:
            time.sleep(1)
            with self._lock:
                if self._drawn and self._since is not None:
                    self._draw()

    def _draw(self) -> None:
        passed = "" if self._since is None else f", {duration(time.monotonic() - self._since)}"
        line = cut(harmless_line(self._text) + passed, width() - 4)
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


def activity(text: str = "") -> contextlib.AbstractContextManager[Say]:
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
        whole = f" of {size(total)}" if total else ""
        speed = size(rate or done / passed)
        left = duration(passed / part - passed) if 0.01 < part < 1 else ""
        if not can_redraw(sys.stderr):
            if now - self._said >= PIPE_INTERVAL:
                self._said = now
                text = f"{size(done)}{whole}, {speed}/s" + (f", {left} left" if left else "")
                print(f"{self._label}: {part:.0%}, {text}", file=sys.stderr, flush=True)
        elif passed >= BAR_AFTER:
            self._show(part, f"{size(done):>7}{whole} {speed:>7}/s" + (f" {left:>7} left" if left else ""))

    def _show(self, part: float, text: str) -> None:
        if self._bar is None:
            _clear_others(self)
            self._bar = _rich_bar(self._label)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=1.0, text=text)
        self._bar.update(self._task, completed=part, text=text)

    def clear(self) -> None:
        """Make room; the next piece of news draws it again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Steps:
    """Something made in steps elsewhere: a bar with what goes on now, or in a pipe a line for each step."""

    def __init__(self, label: str) -> None:
        self._label = harmless_line(label)
        self._began = time.monotonic()
        self._printed = ""
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, fraction: float, text: str, step: str) -> None:
        if not can_redraw(sys.stderr):
            if step != self._printed:
                self._printed = step
                print(f"{self._label}: {harmless_line(step)}", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            _clear_others(self)
            self._bar = _rich_bar(self._label)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=1.0, text="")
        passed = duration(time.monotonic() - self._began)
        self._bar.update(self._task, completed=fraction, text=f"{passed:>7}  {harmless_line(text)}")

    def clear(self) -> None:
        """Make room; the next piece of news draws it again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _rich_bar(label: str) -> Any:
    """A bar whose width does not change with the text behind it, which is cut where the terminal is narrow."""
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    label_width = min(len(label), width() // 3)
    room = width() - label_width - len(" 100% ") - 2  # what is left for the bar and the text
    bar_width = min(max(room - TEXT_WIDTH, NARROWEST_BAR), WIDEST_BAR)
    columns = (
        # Without markup: a name may look like it.
        progress.TextColumn("{task.description}", markup=False, table_column=Column(width=label_width, no_wrap=True)),
        progress.BarColumn(bar_width=bar_width),
        progress.TaskProgressColumn(),
        progress.TextColumn(
            "{task.fields[text]}", markup=False, table_column=Column(width=max(room - bar_width, 1), no_wrap=True)
        ),
    )
    # Rich would take the streams over, and with them the log and the status line.
    return progress.Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def transfer(label: str) -> contextlib.AbstractContextManager[_Transfer]:
    """A bar for a transfer, see Bar. It goes away at the block's end, and for every line that is printed."""
    return _standing(_Transfer(label))


def steps(label: str) -> contextlib.AbstractContextManager[_Steps]:
    """A bar for what is made in steps on a host. It goes away at the block's end."""
    return _standing(_Steps(label))
