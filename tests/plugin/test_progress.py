"""progress.jsonl of real trainings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.conftest import Job

PACKAGES = ["lightning.pytorch", "pytorch_lightning"]


@pytest.mark.parametrize("package", PACKAGES)
def test_progress_of_a_fit(job: Callable[..., Job], package: str) -> None:
    training = job()
    training.train("train.py", "--package", package, "--epochs", "2", "--sleep", "0.15")
    lines = training.progress()
    assert [line["t"] for line in lines] == sorted(line["t"] for line in lines)
    first, last = lines[0], lines[-1]
    assert (first["stage"], first["epoch"], first["step"], first["fraction"]) == ("fit", 0, 0, 0.0)
    assert (last["stage"], last["epoch"], last["step"], last["fraction"], last["left"]) == ("fit", 2, 20, 1.0, 0.0)
    assert last["metrics"].keys() >= {"loss", "val_loss"}
    middle = next(line for line in lines if 0 < line["step"] < 10)
    assert (middle["max_epochs"], middle["max_steps"], middle["batches"], middle["attempt"]) == (2, None, 10, 1)
    assert middle["batch"] == middle["step"]
    assert middle["fraction"] == pytest.approx(middle["batch"] / 20)
    assert 2 < middle["rate"] < 7
    assert 0.5 < middle["left"] < 12
    assert any(line["epoch"] == 1 and line["batch"] == 0 and "val_loss" in line["metrics"] for line in lines)
    assert len(lines) < 20


def test_only_rank_zero_writes_progress(job: Callable[..., Job]) -> None:
    training = job()
    training.train("train.py", "--devices", "2", "--strategy", "ddp", "--epochs", "1")
    lines = training.progress()
    assert [line["step"] for line in lines if line["batch"] is None and line["stage"] == "fit"] == [0, 5]


def test_plugin_does_not_change_the_training(job: Callable[..., Job]) -> None:
    """The plugin draws no random numbers and changes none."""
    observed, alone = job("observed"), job("alone", with_plugin=False)
    for run in (observed, alone):
        run.train("train.py", "--workers", "2", "--loaders", "2", "--epochs", "2")
    assert observed.weights() == alone.weights()
    assert observed.seen() == alone.seen()
    assert [path.name for path in alone.out.iterdir()] == ["log.1"]


def test_unwritable_files_do_not_break_the_training(job: Callable[..., Job]) -> None:
    training = job()
    (training.out / "progress.jsonl").mkdir()
    (training.out / "checkpoints.jsonl").mkdir()
    said = training.train("train.py", "--epochs", "2")
    assert "fit ended after 20 steps" in said
    ours = [line for line in said.splitlines() if line.startswith("gpurun: ")]
    assert len(ours) == len(set(ours)) <= 3
    assert any("progress is not reported" in line and "the training continues" in line for line in ours)
