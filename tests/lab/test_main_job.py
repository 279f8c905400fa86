"""The main job: a Lightning project on two GPUs, in a container of the real Dockerfile, over a real sshd."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import REPOSITORY, Laptop
from tests.lab.jobs import Jobs

DIGITS = REPOSITORY / "examples/digits"
# Two processes on the lab's two cores: torch's own threads would only get in each other's way.
ONE_THREAD = ("-e", "OMP_NUM_THREADS=1")


@pytest.fixture
def project(laptop: Laptop) -> Path:
    root = laptop.home / "work/digits"
    shutil.copytree(DIGITS, root, ignore=shutil.ignore_patterns("__pycache__", "checkpoints", "logs"))
    return root


def test_two_gpus_from_submit_to_fetch(jobs: Jobs, laptop: Laptop, host: LabHost, project: Path) -> None:
    arguments = ("--epochs", "2", "--accelerator", "cpu", "--devices", "2")
    done = laptop.gpurun(
        "submit",
        "train.py",
        "-H",
        "ada",
        "--gpus",
        "2",
        *ONE_THREAD,
        "-f",
        "--fetch",
        "--",
        *arguments,
        cwd=project,
        timeout=900,
    )
    run = done.stdout.splitlines()[0]
    record = jobs.record(run)
    assert (record["state"], record["exit_code"]) == (words.SUCCEEDED, 0)
    assert [gpu["uuid"] for gpu in record["gpus"]] == host.gpus.uuids[:2]
    assert record["image"].startswith("gpurun/")
    assert "val_acc" in laptop.gpurun("logs", run).stdout
    fetched = project / "fetched" / run
    assert (fetched / "checkpoints/best.ckpt").stat().st_size > 10_000
    assert list(fetched.rglob("metrics.csv"))
    assert list(fetched.rglob("events.out.tfevents.*"))
    assert not list(fetched.rglob("train.py"))  # what was sent does not come back
    assert (project / "fetched/.gitignore").read_text().strip() == "*"


def test_stop_keeps_what_was_written(jobs: Jobs, laptop: Laptop, project: Path) -> None:
    arguments = ("--epochs", "500", "--accelerator", "cpu", "--devices", "2")
    done = laptop.gpurun(
        "submit", "train.py", "-H", "ada", "--gpus", "2", *ONE_THREAD, "--", *arguments, cwd=project, timeout=900
    )
    run = done.stdout.strip()
    checkpoint = jobs.folder(run) / "workspace/checkpoints/best.ckpt"
    jobs.until(run, lambda record: checkpoint.exists() or not record["live"])
    laptop.gpurun("fetch", run, cwd=project)  # while it trains
    assert (project / "fetched" / run / "checkpoints/best.ckpt").exists()
    laptop.gpurun("stop", run, "--grace", "20s", cwd=project, timeout=120)
    record = jobs.record(run)
    assert (record["state"], record["reason"]) == (words.STOPPED, "stop")
    (ada,) = [host for host in laptop.gpurun("host", "ls", "--json").json if host["name"] == "ada"]
    assert [gpu["used_by"] for gpu in ada["gpus"]] == [None] * 4
    laptop.gpurun("fetch", run, cwd=project)
    assert (project / "fetched" / run / "checkpoints/last.ckpt").exists()
