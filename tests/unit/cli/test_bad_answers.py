"""The real command over a host that answers whatever it likes: one message, the verb's own exit code, and never a "bug"."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.cli import output, plan_shown
from gpurun.cli.screen import Screen
from tests.support.agent_answers import record
from tests.support.part import part


@pytest.mark.parametrize(
    ("asked", "shown"), [(None, "no GPU"), (0, "no GPU"), (2, "2 GPUs"), ("all", "all GPUs"), ("x", "x GPUs")]
)
def test_gpus_that_a_host_says_were_asked_for_are_shown(
    asked: Any, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_shown.tell_prepared(part({"run": record(gpus_asked=asked)}))
    assert f", {shown}\n" in capsys.readouterr().err


def test_attempt_of_which_a_host_tells_no_earlier_one_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    with output.activity() as say:
        screen = Screen("box", say)
        for attempt in (1, 2):
            screen.state(part(record(attempt=attempt, attempts=[])))
    assert capsys.readouterr().err == "attempt 2 begins from the beginning\n"
