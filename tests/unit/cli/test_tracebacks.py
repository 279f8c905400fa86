"""How the lines of a traceback are shown on a terminal."""

from __future__ import annotations

import pytest

from gpurun.cli.tracebacks import fit, is_marks_alone


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ada/.gpurun/runs/train-7f3k/workspace/train.py", "train.py"),
        ("/workspace/data/digits.py", "data/digits.py"),
        ("/opt/conda/lib/python3.11/site-packages/torch/nn.py", "torch/nn.py"),
        ("/home/ada/.gpurun/cache/environments/ab/lib/python3.11/site-packages/torch/nn.py", "torch/nn.py"),
        ("/opt/conda/lib/python3.11/runpy.py", "runpy.py"),
        ("/srv/workspace/train.py", "/srv/workspace/train.py"),
        ("<string>", "<string>"),
    ],
)
def test_fit_of_a_frame_names_its_file_as_its_project_or_package_has_it(path: str, shown: str) -> None:
    assert fit(f'  File "{path}", line 5, in fit', 80) == f'  File "{shown}", line 5, in fit'


def test_fit_of_code_and_its_marks_leaves_both_their_beginnings() -> None:
    code, marks = "    " + "x" * 100, "    " + " " * 60 + "^" * 40
    assert (fit(code, 80), fit(marks, 80)) == (f"{code[:79]}…", f"{marks[:79]}…")
    assert len(fit("ValueError: " + "x" * 100, 80)) == 80


@pytest.mark.parametrize(
    ("line", "alone"), [(" " * 100 + "^^^", True), (" " * 100 + "x", False), ("    ^^^", False), ("", False)]
)
def test_is_marks_alone(line: str, alone: bool) -> None:
    assert is_marks_alone(line, 80) is alone
