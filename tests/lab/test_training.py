"""Real Lightning trainings in containers, stopped and killed as users and the world do it: they end as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.laptop import REPOSITORY, Laptop
from tests.lab.jobs import Jobs

SCRIPT = REPOSITORY / "tests/plugin/scripts/train.py"
# 20 batches an epoch, shuffled, with dropout, each slow enough to be stopped in.
TRAINING = ("--epochs", "3", "--samples", "160", "--sleep", "0.05")
TWO = ("--devices", "2", "--strategy", "ddp")


@pytest.fixture
def project(laptop: Laptop) -> Path:
    return laptop.project({"gpurun.toml": 'env = ["OMP_NUM_THREADS=1"]\n', "train.py": SCRIPT.read_bytes()})


def submit(jobs: Jobs, project: Path, *arguments: str, options: tuple[str, ...] = ()) -> str:
    command = ("submit", "train.py", "-H", jobs.alias, "-g", "0", *options, "--", *TRAINING)
    return jobs.ask(*command, *arguments, cwd=project).stdout.splitlines()[0]


def left(jobs: Jobs, run: str) -> tuple[str, list[str]]:
    """The final weights, and the samples that each process saw."""
    workspace = jobs.folder(run) / "workspace"
    return (workspace / "weights").read_text(), [path.read_text() for path in sorted(workspace.glob("seen-*"))]


def until_step(jobs: Jobs, run: str, step: int) -> None:
    jobs.until(run, lambda record: ((record["progress"] or {}).get("step") or 0) >= step or not record["live"])


@pytest.mark.parametrize("arguments", [("--workers", "2"), TWO], ids=["workers", "two processes"])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    jobs: Jobs, laptop: Laptop, project: Path, arguments: tuple[str, ...]
) -> None:
    whole = submit(jobs, project, *arguments, options=("-f",))
    run = submit(jobs, project, *arguments)
    until_step(jobs, run, 4)
    said = laptop.gpurun("stop", run, timeout=120)
    assert words.STOP_FOLDER in said.stderr
    record = jobs.record(run)
    assert (record["state"], record["stopped"]["lost_batches"]) == (words.STOPPED, 0)
    assert 4 <= record["stopped"]["step"] < 60
    laptop.gpurun("resume", run, "-f", cwd=project, timeout=300)
    record = jobs.record(run)
    assert (record["state"], record["attempt"]) == (words.SUCCEEDED, 2)
    assert left(jobs, run) == left(jobs, whole)


def test_a_training_that_is_killed_is_gone_on_with_by_itself(jobs: Jobs, laptop: Laptop, project: Path) -> None:
    """From a checkpoint of its own in the middle of an epoch: what came after it is done once more."""
    whole = submit(jobs, project, options=("-f",))
    run = submit(jobs, project, "--every", "5", options=("--retries", "1"))
    until_step(jobs, run, 20)
    jobs.host.run("docker", "kill", jobs.container(run))
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    assert jobs.record(run)["attempt"] == 2
    assert left(jobs, run)[0] == left(jobs, whole)[0]
    # The best checkpoint is found by its name, and known again by its content.
    laptop.gpurun("fetch", run, "--last", "-o", "kept.ckpt", cwd=project)
    assert run in laptop.gpurun("which", "kept.ckpt", cwd=project).stdout
