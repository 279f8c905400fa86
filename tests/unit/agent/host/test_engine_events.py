"""What an engine remembers of a job's end, by the events that dockerd 20.10 printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent.host import engine_events
from gpurun.agent.host.engine_events import End, Event

CAPTURED = Path(__file__).parents[3] / "data/engine"
REFUSED = 114


def captured(name: str) -> list[Event]:
    return engine_events.parse((CAPTURED / f"events_{name}.jsonl").read_text())


@pytest.mark.parametrize(
    ("name", "signalled"), [("by_itself", False), ("stopped", True), ("restarted", True), ("engine_killed", True)]
)
def test_end_that_a_signal_came_before_is_told_from_the_jobs_own(name: str, signalled: bool) -> None:
    end = engine_events.end_of_the_job(captured(name), REFUSED)
    assert end is not None
    assert (end.exit_code, end.signalled) == (0, signalled)


def test_end_of_a_job_whose_container_was_started_again_is_that_of_the_first_start() -> None:
    events = [
        Event(1.0, "start"),
        Event(9.0, "die", exit_code=3),
        Event(20.0, "start"),
        Event(21.0, "die", exit_code=REFUSED),
    ]
    assert engine_events.end_of_the_job(events, REFUSED) == End(9.0, 3, False, from_start=True)
    assert engine_events.end_of_the_job(events[2:], REFUSED) is None


@pytest.mark.parametrize(
    ("before", "signalled"),
    [
        ([Event(1999.0, "kill", "15")], True),
        ([Event(1999.0, "kill", "10")], False),  # USR1: a job may save by it
        ([Event(1.0, "kill", "15")], False),  # long ago, and the job went on
        ([], False),
    ],
)
def test_signal_that_no_job_ends_by_is_none(before: list[Event], signalled: bool) -> None:
    end = engine_events.end_of_the_job([*before, Event(2000.0, "die", exit_code=0)], REFUSED)
    assert end is not None
    assert end.signalled is signalled


def test_stop_by_a_signal_of_the_images_own_is_known_by_its_name() -> None:
    events = [Event(1.0, "kill", "10"), Event(2.0, "die", exit_code=0), Event(2.1, "stop")]
    assert engine_events.end_of_the_job(events, REFUSED) == End(2.0, 0, True)


def test_engine_that_has_forgotten_tells_nothing() -> None:
    assert engine_events.end_of_the_job([], REFUSED) is None
    assert engine_events.parse('not JSON\n[1]\n{"Action": "die"}\n{"status": "die", "Actor": null}\n') == []


def test_question_names_one_container_and_ends_by_itself() -> None:
    assert engine_events.ask("c0ffee", 1.5, 2.25) == [
        "events", "--since", "1.500", "--until", "2.250", "--filter", "container=c0ffee", "--format", "{{json .}}",
    ]  # fmt: skip
