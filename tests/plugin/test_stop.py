"""A stop: when it is noticed, what is written, and how the job ends. test_resume.py shows that nothing is lost."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from pathlib import Path

from tests.bench import stops
from tests.plugin.conftest import Job, Zygote
from tests.support.waiting import eventually

Make = Callable[..., Job]


def test_save_in_progress_is_marked_until_the_checkpoint_is_complete(job: Make) -> None:
    training = job()
    process = training.start("slow_save.py")
    eventually(lambda: len(training.progress()) > 1)
    (training.out / "stop").touch()
    eventually(lambda: list((training.workspace / "gpurun-stop").glob("*.ckpt")))
    assert (training.out / "saving").exists()  # it takes 0.3 s
    assert not (training.out / "stopped.json").exists()
    assert process.wait() == 0
    assert not (training.out / "saving").exists()
    stopped = training.stopped()
    content = (training.workspace / stopped["checkpoint"]).read_bytes()
    assert training.ledger()[stopped["checkpoint"]]["sha256"] == hashlib.sha256(content).hexdigest()
    assert stopped["attempt"] == 1


def test_foreign_sigterm_saves_a_checkpoint_and_is_a_failure(job: Make) -> None:
    training = job()
    process = training.start("train.py", "--epochs", "400", "--sleep", "0.02", "--handler")
    eventually(lambda: len(training.progress()) > 1)
    process.signal(signal.SIGTERM)
    assert process.wait() == 143
    assert training.stopped()["why"] == "SIGTERM"
    assert (training.workspace / training.stopped()["checkpoint"]).exists()
    assert "their own handler" in process.log.read_text()


def test_stops_at_random_moments(zygote: Zygote, tmp_path: Path) -> None:
    """The benchmark does 200."""
    report = stops.at_random(3, 1, zygote, tmp_path)
    assert report.endswith("stops at random moments: 0 batches done again, 0 trainings that ended otherwise")


def test_stop_waits_for_the_end_of_an_accumulated_step(job: Make) -> None:
    training = job()
    training.train("train.py", "--accumulate", "4", "--stop-at", "4")
    assert training.stopped()["step"] == 2
    assert len(training.seen()) == 8


def test_job_ends_although_the_checkpoint_cannot_be_saved(job: Make) -> None:
    training = job()
    (training.workspace / "gpurun-stop").write_text("in the way")
    said = training.train("train.py", "--stop-at", "4")
    assert "nothing could be saved" in said
    assert (training.stopped()["checkpoint"], training.stopped()["step"]) == (None, 5)


def test_separate_validation_stops_without_a_checkpoint(job: Make) -> None:
    training = job()
    process = training.start("evaluate.py")
    eventually(lambda: len(training.progress()) > 0)
    (training.out / "stop").touch()
    assert process.wait() == 0
    assert training.stopped()["checkpoint"] is None


def test_resume_of_unordered_data_is_reported_as_inexact(job: Make) -> None:
    training = job()
    training.train("train.py", "--sampler", "stream", "--no-validation", "--stop-at", "13")
    said = training.resume("train.py", "--sampler", "stream", "--no-validation")
    assert said.count("the order of its data cannot be restored") == 1
    assert "fit ended after" in said
