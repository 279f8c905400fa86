"""How far a training is, as ps and status say it."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.cli import app, training
from gpurun.errors import HostUnreachable
from gpurun.store import run_store
from tests.support.part import part

TOLD: Any = {
    "t": 1.0, "attempt": 1, "stage": "fit", "epoch": 3, "step": 1200, "max_epochs": 10, "max_steps": None, "batch": 5,
    "batches": 400, "rate": 12.3456789, "left": 250.0, "fraction": 0.625, "metrics": {"val_loss": 0.0123456789},
}  # fmt: skip


def record(run: str = "train-7f3k", state: str = "running", **told: Any) -> Any:
    known = {"id": run, "state": state, "attempt": 1, "live": True, "owner": None, "project": "p", "name": "train"}
    return {**known, "created": 1.0, "since": 1.0, "progress": {**TOLD, **told}}


def test_a_bar_with_epoch_and_time_left() -> None:
    assert training.progress_bar(record(), 8) == "█████░░░  62% epoch 3/9 4m left"
    assert training.progress_bar(record(), 0) == " 62% epoch 3/9 4m left"
    assert training.progress_bar(record(fraction=1.0, epoch=10, left=0.0), 4) == "████ 100% epoch 9/9 0s left"
    assert training.progress_bar(record(fraction=None, max_epochs=None, left=None), 8) == "epoch 3"


def test_a_line_in_full() -> None:
    said = "62%, epoch 3/9, step 1200, 12.346 steps/s, 4m 10s left"
    assert training.progress_line(record()) == said
    assert training.progress_line(record(state="succeeded")) == "62%, epoch 3/9, step 1200, 12.346 steps/s"
    short: Any = {"fraction": None, "epoch": None, "rate": None, "left": None}
    assert training.progress_line(record(**short, stage="test", max_steps=2000)) == "step 1200/2000, in test"


def test_what_an_earlier_attempt_told_says_nothing_of_this_one_while_it_runs() -> None:
    again = {**record(), "attempt": 2}
    assert (training.progress_bar(part(again), 8), training.progress_line(part(again))) == ("", "")


def test_metrics_are_numbers_or_left_out() -> None:
    told = {"val_loss": 0.0123456789, "acc": 1, "bad": None, "worse": "x", "nan": float("nan"), "huge": 10**400}
    assert training.metrics(part({**record(), "metrics": told})) == "val_loss 0.012346, acc 1"
    assert training.metrics(record()) == "val_loss 0.012346"


@pytest.mark.parametrize("nonsense", [None, "x", 3, [], {"fraction": "x", "epoch": [], "left": {}, "rate": True}])
def test_what_a_job_may_write_instead(nonsense: Any) -> None:
    strange = {**record(), "progress": nonsense}
    assert (training.progress_bar(part(strange), 8), training.progress_line(part(strange))) == ("", "")


def test_what_a_checkpoint_was_judged_by() -> None:
    told = {"monitor": "val_loss", "mode": "min", "value": 0.25}
    assert training.metric(told) == "val_loss 0.25 (min)"
    assert training.metric({"monitor": None, "value": 0.25}) == ""
    assert training.metric({"monitor": "val_loss", "mode": None, "value": None}) == "val_loss unknown"


@pytest.mark.usefixtures("home")
def test_resume_of_a_training_that_is_done_asks_first(capsys: pytest.CaptureFixture[str]) -> None:
    run_store.update([record(state="succeeded", epoch=10)], "box")
    assert app.main(["resume", "train-7f3k"]) == 2
    said = capsys.readouterr().err
    assert "train-7f3k has succeeded (epoch 9/9, step 1200): as it was submitted, its training is done" in said
    assert "next: add -y, or name a checkpoint: --from best" in said


@pytest.mark.usefixtures("home")
def test_status_of_a_silent_host_tells_what_was_last_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = {"path": "last.ckpt", "epoch": 3, "step": 1200, "monitor": "val_loss", "mode": "min", "value": 0.5}
    run_store.update([part({**record(), "checkpoints": {"count": 1, "best": None, "last": last}})], "box")

    def silent(*_: object) -> None:
        raise HostUnreachable("box does not answer", "try again")

    monkeypatch.setattr("gpurun.commands.runs.status", silent)
    assert app.main(["status", "train-7f3k"]) == 255
    shown = capsys.readouterr().out
    assert "progress  62%, epoch 3/9" in shown
    assert "metrics   val_loss 0.012346" in shown
    assert "1 checkpoint, the last last.ckpt (epoch 3, step 1200, val_loss 0.5)" in shown
