"""Draw the events of a use case: a status line, and a bar while bytes are on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpurun.cli import output
from gpurun.cli.progress import Bar, Say
from gpurun.events import Confirm, Doing, Event, Moved, Warned


class Drawn:
    """The callback of a use case. `on` has what a verb does at the events of that use case alone."""

    def __init__(self, say: Say, bar: Bar, *, yes: bool) -> None:
        self.say, self._bar, self._yes = say, bar, yes
        self.on: dict[type[Event], Callable[[Any], None]] = {}
        self.last: dict[type[Event], Any] = {}

    def __call__(self, event: Event) -> None:
        self.last[type(event)] = event
        if isinstance(event, Doing):
            self.say(event.text)
        elif isinstance(event, Moved):
            self._bar(event.done, event.total, fraction=event.fraction, rate=event.rate)
        elif isinstance(event, Warned):
            output.warn(event.text)
        elif isinstance(event, Confirm):
            self.say("")
            output.confirm(event.question, yes=self._yes, otherwise="add -y")
        elif type(event) in self.on:
            self.on[type(event)](event)


@contextmanager
def drawn(label: str, *, yes: bool = False) -> Iterator[Drawn]:
    """Draw what is reported for as long as the block runs; `label` stands before the bar."""
    with output.activity() as say, output.transfer(label) as bar:
        yield Drawn(say, bar, yes=yes)
