"""Where gpurun's part of the line ends and the script's begins."""

from __future__ import annotations

import pytest

from gpurun.cli.app import main


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (["train.py", "--lr", "1e-3"], "train.py -- --lr 1e-3"),
        (["train.py", "--lr=1e-3", "-f"], "train.py -f -- --lr=1e-3"),
        (["train.py", "--lr", "1e-3", "-g", "2"], "train.py -g 2 -- --lr 1e-3"),
        (["-g2", "train.py", "fit"], "-g2 train.py -- fit"),
        (["train.py", "--lr", "1e-3", "--", "fit"], "train.py -- --lr 1e-3 fit"),
        (["-m", "vision.train", "--lr", "1"], "-m vision.train -- --lr 1"),
        (["train.py", "--name", "a b", "--lr", "1"], "train.py --name 'a b' -- --lr 1"),
    ],
)
def test_an_argument_of_the_script_is_answered_with_the_line_that_was_meant(
    line: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *line]) == 2
    assert capsys.readouterr().err.endswith(f"next: gpurun submit {meant}\n")


def test_a_mistyped_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "train.py", "--gpu", "2"]) == 2
    shown = capsys.readouterr().err
    assert "does not know --gpu; did you mean --gpus?" in shown
    assert "gpurun submit train.py -- --gpu 2" in shown
