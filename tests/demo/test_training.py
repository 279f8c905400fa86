"""The examples train for real, by hand as their READMEs say; gpurun has no part in it.

Needs the extra `demo`; without it these tests fail, they do not skip.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def python(project: Path, *command: str) -> str:
    """Run `python COMMAND` in the project; everything that it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads of so small a model mostly wait for each other
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def copied(example: str, directory: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "checkpoints", "logs")
    return Path(shutil.copytree(CHECKOUT / "examples" / example, directory / example, ignore=ignored))


def metrics(project: Path, name: str) -> list[float]:
    (file,) = project.glob("logs/csv/*/metrics.csv")
    with file.open(newline="") as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row[name]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copied("digits", tmp_path_factory.mktemp("trained"))
    started = time.monotonic()
    python(project, "train.py")
    print(f"digits trained in {time.monotonic() - started:.1f} s")
    return project


def test_digits_are_learned(trained: Path) -> None:
    found = json.loads(python(trained, "predict.py", "--json"))
    print(f"digits: validation accuracy {found['val_acc']:.4f}")
    assert found["images"] == 360
    assert found["val_acc"] >= 0.98
    assert found["val_acc"] == pytest.approx(max(metrics(trained, "val_acc")), abs=1e-6)
    assert f"validation accuracy {found['val_acc']:.2%} on 360 images" in python(trained, "predict.py")


def test_digits_leave_checkpoints_and_logs(trained: Path) -> None:
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert len(list(trained.glob("logs/tensorboard/*/events.out.tfevents.*"))) == 1
    rates = metrics(trained, "lr-AdamW")
    assert max(rates) == pytest.approx(5e-3, rel=0.05)
    assert rates[-1] < rates[0] < max(rates)


def test_training_again_replaces_the_best_checkpoint(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    python(again, "train.py", "--epochs", "1", "--seed", "3")
    assert {path.name for path in (again / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert json.loads(python(again, "predict.py", "--json"))["val_acc"] < 0.97


def test_digits_train_in_two_processes(tmp_path: Path) -> None:
    project = copied("digits", tmp_path)
    printed = python(project, "train.py", "--devices", "2", "--accelerator", "cpu", "--epochs", "8")
    assert "MEMBER: 2/2" in printed
    assert json.loads(python(project, "predict.py", "--json"))["val_acc"] >= 0.9
    assert len(list(project.glob("logs/*/*"))) == 2


def test_digits_take_a_precision(tmp_path: Path) -> None:
    project = copied("digits", tmp_path)
    printed = python(project, "train.py", "--epochs", "1", "--precision", "bf16-mixed")
    assert "bfloat16 Automatic Mixed Precision" in printed


def test_mnist_trains_on_made_up_images(tmp_path: Path) -> None:
    project = copied("mnist", tmp_path)
    python(project, "train.py", "--fake-data", "--epochs", "2", "--workers", "1")
    assert (project / "checkpoints" / "best.ckpt").is_file()
    assert metrics(project, "val_acc")[-1] >= 0.97
