"""What a run brings to the host that it goes on on."""

from __future__ import annotations

from gpurun.agent import vocabulary as words
from gpurun.commands import migrate
from tests.support.agent_answers import record
from tests.support.part import part


def test_attempts_so_far_keep_how_long_the_last_one_ran_whatever_the_clock_was_set_to() -> None:
    told = part(record("train-7f3k", state="failed", started=100.0, ended=9000.0, ran=60.0))
    attempts = migrate._attempts_so_far(told)
    again = part(
        record("train-7f3k", state="succeeded", attempt=2, attempts=attempts, started=9100.0, ended=9110.0, ran=10.0)
    )
    assert words.seconds_ran(again) == 70.0
