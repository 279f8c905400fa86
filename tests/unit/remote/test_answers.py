"""What answers may look like: to `migrate`, which moves a run, settles a move, or takes a note of one; and a run's record."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.remote import answers
from tests.support.agent_answers import listing, record

RUN = "train-7f3k"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"settle": "ab12"}, {"begun": False, "run": None}),
        ({"back": "ab12"}, {}),
        ({"to": "spare", "attempt": 2}, {}),
    ],
)
def test_migrate_that_settles_or_notes_a_move_passes(request_: dict[str, Any], answer: dict[str, Any]) -> None:
    assert answers.check("migrate", {"run": RUN, **request_}, answer) == answer


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"settle": "ab12"}, {}),
        ({"settle": "ab12"}, {"begun": True, "run": None}),
        ({"settle": "ab12"}, {"run": None}),
        ({"settle": "ab12"}, {"begun": None, "run": None}),
        ({"ask": "ab12"}, {}),
        ({"ask": "ab12"}, {"begun": False, "run": None}),
    ],
)
def test_migrate_that_leaves_open_how_a_move_went_is_refused(request_: dict[str, Any], answer: dict[str, Any]) -> None:
    with pytest.raises(answers.Malformed):
        answers.check("migrate", {"run": RUN, **request_}, answer)


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "", "a b", "a\x1b[2J"])
def test_host_name_that_ssh_or_a_terminal_would_take_for_more_is_refused(name: str) -> None:
    with pytest.raises(answers.Malformed):
        answers.host_name(name, "to")


@pytest.mark.parametrize(
    "wrong",
    [{"ran": "long"}, {"ended_mark": ["b"]}, {"ended_mark": {"up": "1", "boot": "b"}}, {"ended_mark": {"boot": 1}}, {"here": 1}],
)  # fmt: skip
def test_run_that_is_told_with_a_wrong_time_or_place_is_set_aside(wrong: dict[str, Any]) -> None:
    told = answers.check("ps", {"ids": None}, listing(runs=[record(RUN, **wrong)]))
    assert told["runs"][0]["state"] == "unknown"
    assert next(iter(wrong)) in told["runs"][0]["problem"]


def test_run_that_lacks_what_a_newer_agent_tells_passes() -> None:
    runs = [record(RUN), record("train-9k2m", ran=None, ended_mark=None, here=None)]
    told = answers.check("ps", {"ids": None}, listing(runs=runs, mark={"t": 1.0, "up": 1.0, "boot": "b"}))
    assert [run["state"] for run in told["runs"]] == ["running", "running"]


@pytest.mark.parametrize("mark", [["b"], {"up": "1"}, {"boot": 1}])
def test_listing_with_a_wrong_mark_is_refused(mark: Any) -> None:
    with pytest.raises(answers.Malformed, match="mark"):
        answers.check("ps", {"ids": None}, listing(mark=mark))


def test_run_with_a_port_that_is_the_same_here_and_there_is_read() -> None:
    """What `ports = [8080]` of a job file becomes."""
    told = answers.check("ps", {"ids": None}, listing(runs=[record(RUN, ports=[{"local": None, "remote": 8080}])]))
    assert "problem" not in told["runs"][0]
