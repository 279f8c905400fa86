"""Scripts with Trainers of all kinds run the same with the plugin."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.plugin.conftest import Job

PACKAGES = ["lightning.pytorch", "pytorch_lightning"]
Make = Callable[..., Job]


def results(said: str) -> list[str]:
    return re.findall(r"^(?:FIRST|VALIDATE|TEST|PREDICT|SECOND|AGAIN|LOADER) .*", said, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_fit_validate_test_and_predict(job: Make, package: str) -> None:
    told, alone = job("told"), job("alone", with_plugin=False)
    with_us, without = (results(one.train("many.py", package)) for one in (told, alone))
    assert with_us == without
    assert with_us[-1] == "LOADER BatchSampler"
    stages = {line["stage"] for line in told.progress()}
    assert stages == {"fit", "validate", "test", "predict"}
    assert "gpurun:" not in told.said


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_first_fit_resumes(job: Make, package: str) -> None:
    """A checkpoint with objects of the script is loaded, because the run itself wrote it."""
    training = job()
    training.train("many.py", package)
    (checkpoint,) = [path for path in training.ledger() if path.startswith("first")]
    said = training.train("one_more.py", package, resume=checkpoint)
    assert results(said) == ["FIRST 40", "TEST ['test']", "SECOND 10", "AGAIN 40"]
    assert said.count("gpurun: the training continues at epoch 3, step 30") == 1


def test_missing_checkpoint_is_not_an_error(job: Make) -> None:
    said = job().train("train.py", "--epochs", "1", resume="gone.ckpt")
    assert "gone.ckpt does not exist: the training starts from the beginning" in said
    assert "fit ended after 10 steps" in said


def test_checkpoint_of_the_script_overrides_the_runs(job: Make) -> None:
    training = job()
    training.train("saves.py", "lightning.pytorch")
    said = training.train("one_more.py", "lightning.pytorch", "ck/last.ckpt", resume="best_model.ckpt")
    assert "FIRST 40" in results(said)
    assert "ck/last.ckpt" in said


def test_lightning_cli(job: Make) -> None:
    training = job()
    flags = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    training.train("cli.py", "fit", *flags)
    (checkpoint,) = training.ledger()
    assert training.progress()[-1]["fraction"] == 1.0
    said = training.train("cli.py", "fit", *flags, "--trainer.max_epochs=4", resume=checkpoint)
    assert "the training continues at epoch 2, step 20" in said
    assert training.progress()[-1]["step"] == 40


def test_spawned_processes(job: Make) -> None:
    """The parent waits for their result, so the fit ends and the script continues."""
    training = job()
    flags = ("--devices", "2", "--strategy", "ddp_fork", "--samples", "160", "--epochs", "2")
    said = training.train("train.py", *flags, "--stop-at", "4", "--sleep", "0.05")
    assert 0 < training.stopped()["step"] < 20
    assert len(training.seen()) == 2 * training.stopped()["step"]
    assert "fit ended after" in said
