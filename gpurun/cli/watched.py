"""A run's status that is looked at for a while: what `gpurun.commands.follow.watch` tells, shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output
from gpurun.cli.terminal import can_redraw, harmless

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import StatusAnswer


class Board:
    """A run's status, drawn anew in its place on a terminal; elsewhere a line for each new state."""

    def __init__(self, host: str, lines: Callable[[StatusAnswer], list[str]]) -> None:
        """`lines`: what is to be seen of an answer to `status`."""
        self._host, self._lines = host, lines
        self._answer: StatusAnswer | None = None
        self._contact = self._told = ""
        self._live: Any = None

    def __enter__(self) -> Board:
        if can_redraw(sys.stdout):
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(highlight=False), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, answer: StatusAnswer) -> None:
        self._answer = answer
        if self._live is not None:
            self._draw()
            return
        record = answer["run"]
        doing = describe.doing(record)
        told = describe.waiting(record) or describe.state(record) + (f": {doing}" if doing else "")
        if told != self._told and not words.is_over(record):
            self._told = told
            output.note(f"{record['id']}: {told}")

    def lost(self, what: str) -> None:
        self._tell(f"no contact with {self._host} ({what}); trying again")

    def back(self) -> None:
        self._tell("")

    def asks(self) -> None:
        self._tell(f"{self._host} wants you to log in again")

    def _tell(self, contact: str) -> None:
        self._contact = contact
        if self._live is not None:
            self._draw()
        elif contact:
            output.warn(contact)

    def _draw(self) -> None:
        from rich.text import Text

        lines = self._lines(self._answer) if self._answer is not None else []
        last = output.styled(self._contact, output.YELLOW, stream=sys.stdout) if self._contact else ""
        self._live.update(
            Text.from_ansi(harmless("\n".join([*lines, "", last or "Ctrl-C leaves it; the run goes on"]))), refresh=True
        )
