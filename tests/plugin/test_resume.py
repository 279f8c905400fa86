"""A resumed training ends with exactly the weights of an uninterrupted one, and sees the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.plugin.conftest import Job

Make = Callable[..., Job]
DDP = ("--devices", "2", "--strategy", "ddp")


@dataclass(frozen=True)
class Whole:
    """Return the result of an uninterrupted training, shared by all tests with these flags."""

    weights: str
    seen: list[list[str]]  # by rank


_wholes: dict[tuple[str, ...], Whole] = {}


def whole(job: Make, *flags: str, ranks: int = 1) -> Whole:
    if flags not in _wholes:
        training = job("whole")
        training.train("train.py", *flags)
        _wholes[flags] = Whole(training.weights(), [training.seen(rank) for rank in range(ranks)])
    return _wholes[flags]


def compare(job: Make, *flags: str, stop: tuple[str, ...], ranks: int = 1) -> Job:
    """By default: 3 epochs of 10 batches."""
    broken = job("broken")
    broken.train("train.py", *flags, *stop)
    assert not (broken.workspace / "weights").exists(), broken.said
    broken.resume("train.py", *flags)
    assert Whole(broken.weights(), [broken.seen(rank) for rank in range(ranks)]) == whole(job, *flags, ranks=ranks)
    return broken


@pytest.mark.parametrize(
    ("package", "workers"), [("lightning.pytorch", "0"), ("lightning.pytorch", "2"), ("pytorch_lightning", "2")]
)
def test_resume_in_the_middle_of_an_epoch(job: Make, package: str, workers: str) -> None:
    broken = compare(job, "--package", package, "--workers", workers, stop=("--stop-at", "13"))
    stopped = broken.stopped()
    assert stopped["checkpoint"] == "gpurun-stop/epoch=1-step=14.ckpt"
    assert (stopped["epoch"], stopped["step"], stopped["lost_batches"], stopped["why"]) == (1, 14, 0, "stop")
    assert broken.ledger()[stopped["checkpoint"]]["step"] == 14
    assert "the training continues at epoch 1, step 14, batch 4 of the epoch" in broken.said
    assert "not resumable" not in broken.said
    assert not (broken.out / "saving").exists()


@pytest.mark.parametrize("step", ["0", "9", "29"])
def test_resume_at_the_borders_of_an_epoch(job: Make, step: str) -> None:
    compare(job, stop=("--stop-at", step))


@pytest.mark.parametrize("flags", [("--workers", "2"), ("--no-validation",), ("--no-validation", "--workers", "2")])
def test_resume_after_the_last_batch_of_an_epoch(job: Make, flags: tuple[str, ...]) -> None:
    compare(job, *flags, stop=("--stop-at", "9"))


@pytest.mark.parametrize(
    "flags",
    [
        ("--workers", "2", "--persistent"),
        ("--no-validation", "--workers", "2"),
        ("--accumulate", "4"),
        ("--manual",),
        ("--max-steps", "25", "--epochs", "-1"),
        ("--sampler", "buckets"),
        ("--sampler", "buckets", "--workers", "2"),
        ("--sampler", "weighted"),
        ("--sampler", "generator", "--workers", "2"),
        ("--sampler", "replacement"),
        ("--loaders", "2"),
        ("--plateau",),
    ],
    ids=" ".join,
)
def test_resume_with_samplers_schedulers_and_random_numbers(job: Make, flags: tuple[str, ...]) -> None:
    compare(job, *flags, stop=("--stop-at", "13"))


@pytest.mark.parametrize("step", ["11", "15"])
def test_resume_at_a_validation(job: Make, step: str) -> None:
    compare(job, "--val-interval", "4", "--plateau", stop=("--stop-at", step))


@pytest.mark.parametrize(("step", "workers"), [("2", "0"), ("7", "2")])
def test_resume_in_the_middle_of_a_validation(job: Make, step: str, workers: str) -> None:
    """Three validations of 5 batches in an epoch, the last one at its end."""
    flags = ("--val-interval", "5", "--plateau", "--workers", workers)
    broken = compare(job, *flags, stop=("--stop-in-validation", step))
    assert broken.stopped()["step"] == {"2": 5, "7": 10}[step]


def test_resume_twice_in_one_epoch_and_after_a_signal(job: Make) -> None:
    broken = job("broken")
    broken.train("train.py", "--stop-at", "12")
    for step in ("15", "17"):
        (broken.out / "stop").unlink()
        broken.train("train.py", "--stop-at", step, resume=broken.stopped()["checkpoint"])
    (broken.out / "stop").unlink()
    broken.train("train.py", "--stop-at", "24", "--term", resume=broken.stopped()["checkpoint"], code=143)
    assert broken.stopped()["why"] == "SIGTERM"
    assert [path.name for path in (broken.workspace / "gpurun-stop").iterdir()] == ["epoch=2-step=25.ckpt"]
    broken.resume("train.py")
    assert Whole(broken.weights(), [broken.seen()]) == whole(job)


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize(
    ("flags", "stop"),
    [
        (("--workers", "2"), "13"),
        (("--val-interval", "5"), "14"),
    ],
    ids=str,
)
def test_resume_of_two_processes(job: Make, flags: tuple[str, ...], stop: str) -> None:
    """Each trains 10 batches of 8 samples per epoch."""
    compare(job, *DDP, "--samples", "160", *flags, stop=("--stop-at", stop, "--sleep", "0.05"), ranks=2)


@pytest.mark.parametrize(
    ("flags", "checkpoint"),
    [
        (("--every", "7"), "steps/step=14.ckpt"),
        (("--every", "7", "--workers", "2"), "steps/step=7.ckpt"),
        (("--every", "5"), "steps/step=10.ckpt"),  # at an epoch's last batch, before its validation
        (("--every", "5", "--val-interval", "5"), "steps/step=5.ckpt"),
        (("--no-validation",), "checkpoints/epoch=1-step=20.ckpt"),  # at an epoch's end
        (("--no-validation", "--workers", "2"), "checkpoints/epoch=1-step=20.ckpt"),
        ((), "checkpoints/epoch=1-step=20.ckpt"),  # at the end of a validation at an epoch's end
        (("--workers", "2", "--plateau"), "checkpoints/epoch=1-step=20.ckpt"),
        (("--val-interval", "4"), "checkpoints/epoch=1-step=18.ckpt"),  # in an epoch's middle
    ],
    ids=str,
)
def test_resume_from_the_users_own_checkpoints(job: Make, flags: tuple[str, ...], checkpoint: str) -> None:
    """A killed run resumes from these."""
    flags = (*flags, "--keep")
    broken = job("broken")
    broken.train("train.py", *flags, "--kill-at", "24", code=-9)
    broken.train("train.py", *flags, resume=checkpoint)
    at = int(checkpoint.partition("step=")[2].partition(".")[0])
    expected = whole(job, *flags)
    assert broken.seen() == expected.seen[0][:25] + expected.seen[0][at:]
    assert broken.weights() == expected.weights
