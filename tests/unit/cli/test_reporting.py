"""Events of a use case, drawn."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gpurun.cli.reporting import drawn
from gpurun.errors import UsageError
from gpurun.events import Confirm, Doing, Event, Moved, Warned


@dataclass(frozen=True)
class Found(Event):
    what: str


def test_events_are_told_by_kind_and_the_last_of_each_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Event] = []
    with drawn("sending") as report:
        report.on[Found] = heard.append
        for event in (Doing("asking box"), Moved(5, 10), Warned("the disk is nearly full"), Found("a"), Found("b")):
            report(event)
        assert report.last[Found] == Found("b")
    assert heard == [Found("a"), Found("b")]
    assert capsys.readouterr().err == "warning: the disk is nearly full\n"


def test_question_that_nobody_can_answer_raises() -> None:
    with drawn("sending") as report, pytest.raises(UsageError):
        report(Confirm("Go on?"))
    with drawn("sending", yes=True) as report:
        report(Confirm("Go on?"))
