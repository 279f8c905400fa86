"""A run, and a host that is silent, in words."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.cli import describe
from gpurun.errors import HostUnreachable
from tests.support.part import part


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"gpus": [{"index": 0}, {"index": 3}], "gpus_asked": 2}, "GPU 0,3"),
        ({"gpus": [], "gpus_asked": 2}, "wants 2"),
        ({"gpus_asked": "all"}, "wants all"),
        ({"gpus_asked": 0}, "none"),
    ],
)
def test_a_number_of_gpus_is_not_taken_for_the_number_of_one(record: Any, shown: str) -> None:
    assert describe.gpus(record) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("ssh: connect to host 192.0.2.7 port 22: Connection refused", "connection refused"),
        ("ssh: Could not resolve hostname far: Name or service not known", "no machine is known by the name `far`"),
        ("the connection broke off", "the connection broke off"),
    ],
)
def test_why_a_host_is_silent(said: str, shown: str) -> None:
    assert describe.silence(HostUnreachable(said)) == shown


def test_how_a_run_runs() -> None:
    shown = [describe.runtime(part({"runtime": name})) for name in ("bare", "docker", None)]
    assert shown == ["without a container (bare)", "in a container (docker)", ""]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"step": {"doing": "pulling small:1", "since": 9.0, "seconds": 80.4}}, "pulling small:1, 1m 20s"),
        ({"step": {"doing": "pulling small:1"}}, "pulling small:1"),
        ({"step": {"doing": "pulling small:1", "seconds": 80.4}, "waiting": "the engine"}, ""),
        ({"step": {"doing": "pulling small:1", "seconds": 80.4}, "state": "failed"}, ""),
        ({}, ""),
    ],
)
def test_what_is_done_before_the_start_is_told_with_how_long_it_takes(changes: Any, shown: str) -> None:
    assert describe.step(part({"state": "preparing", **changes})) == shown


@pytest.mark.parametrize(
    ("earlier", "shown"),
    [
        ([], "succeeded after 1m 30s"),
        ([{"attempt": 1, "state": "failed", "started": 0.0, "ended": 30.0}], "succeeded after 2m in 2 attempts"),
        (
            [{"attempt": 1, "state": "failed", "started": 0.0, "ended": 9.0, "ran": 30.0}],
            "succeeded after 2m in 2 attempts",
        ),
        ([{"attempt": 1, "state": "failed", "started": None, "ended": 9.0}], "succeeded after 1m 30s"),
    ],
)
def test_time_that_a_run_took_is_that_of_all_its_attempts(earlier: list[dict[str, Any]], shown: str) -> None:
    record = {"state": "succeeded", "attempt": 1 + len(earlier), "attempts": earlier, "started": 100.0, "ended": 190.0}
    assert describe.outcome(part(record)) == shown


def test_time_of_a_run_whose_last_attempt_never_began_is_not_said_of_it() -> None:
    before = {"attempt": 1, "state": "failed", "started": 0.0, "ended": 30.0}
    record = {"state": "failed", "attempt": 2, "attempts": [before], "started": None, "ended": 190.0}
    assert describe.outcome(part(record)) == "failed before it ran"
