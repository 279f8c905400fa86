"""Each verb has types for its request and its answer, and a check of what really comes."""

from __future__ import annotations

import re
from typing import get_overloads

from gpurun.remote import answers
from gpurun.remote.questions import Questions
from gpurun.remote.wire import Wire


def test_verbs_with_types_are_those_whose_answers_are_checked() -> None:
    typed = [one.__annotations__["verb"] for method in (Questions.ask, Wire.stream) for one in get_overloads(method)]
    assert {verb for text in typed for verb in re.findall(r"Literal\[['\"](\w+)", text)} == set(answers.ANSWERS)
