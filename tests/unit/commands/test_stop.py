"""What `stop` makes of the GPUs of runs that have ended."""

from __future__ import annotations

import pytest

from gpurun.commands import stop
from tests.support.part import part


@pytest.mark.parametrize(
    ("used_by", "run", "leftover"),
    [
        (None, None, False),
        ("run train-7f3k of ada", "train-7f3k", True),
        ("run next-9k2m of eve", "next-9k2m", False),
        ("process 7 (python of ada, 9 MiB)", None, True),
        ("run away (a process of ada)", None, True),
    ],
)
def test_is_leftover_goes_by_the_run_and_not_by_the_words(used_by: str | None, run: str | None, leftover: bool) -> None:
    assert stop._is_leftover(part({"used_by": used_by, "run": run}), ["train-7f3k"]) is leftover
