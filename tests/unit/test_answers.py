"""What an answer to `carry` may look like: it moves a run, settles a move, or takes a note of one."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun import answers

RUN = "train-7f3k"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"settle": "ab12"}, {"begun": False, "run": None}),
        ({"back": "ab12"}, {}),
        ({"to": "spare", "attempt": 2}, {}),
    ],
)
def test_carry_that_settles_or_notes_a_move_passes(request_: dict[str, Any], answer: dict[str, Any]) -> None:
    assert answers.check("carry", {"run": RUN, **request_}, answer) == answer


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
def test_carry_that_leaves_open_how_a_move_went_is_refused(request_: dict[str, Any], answer: dict[str, Any]) -> None:
    with pytest.raises(answers.Malformed):
        answers.check("carry", {"run": RUN, **request_}, answer)


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "", "a b", "a\x1b[2J"])
def test_host_name_that_ssh_or_a_terminal_would_take_for_more_is_refused(name: str) -> None:
    with pytest.raises(answers.Malformed):
        answers.host_name(name, "to")
