"""The examples train for real, by hand as their READMEs say; gpurun has no part in it.

Needs the extra `demo`; without it these tests fail, they do not skip.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gpurun.agent.paths import HostPaths
from gpurun.agent.setup import notebooks
from gpurun.notebook.convert import convert

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


def test_last_checkpoint_of_the_digits_is_that_of_the_last_epoch(trained: Path) -> None:
    accuracy = metrics(trained, "val_acc")
    for name, epoch in (("last", len(accuracy) - 1), ("best", accuracy.index(max(accuracy)))):
        assert torch.load(trained / f"checkpoints/{name}.ckpt", weights_only=True)["epoch"] == epoch


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
    assert metrics(project, "val_acc")[-1] >= 0.97
    found = json.loads(python(project, "predict.py", "--json"))
    assert (found["images"], found["val_acc"]) == (512, pytest.approx(max(metrics(project, "val_acc")), abs=1e-6))


def test_cifar10_trains_on_made_up_images_in_one_process_and_in_two(tmp_path: Path) -> None:
    project = copied("cifar10", tmp_path)
    little = ("--fake-data", "--width", "4", "--workers", "0", "--batch-size", "64", "--lr", "0.02")
    printed = python(project, "train.py", *little, "--epochs", "2", "--precision", "bf16-mixed")
    assert re.search(r"^epoch 1/1  train_loss \S+  val_loss \S+  val_acc \S+$", printed, re.MULTILINE)
    found = json.loads(python(project, "predict.py", "--json"))
    assert found["images"] == 512
    assert found["val_acc"] >= 0.5  # by chance: 0.1
    printed = python(project, "train.py", *little, "--epochs", "1", "--devices", "2", "--accelerator", "cpu")
    assert "MEMBER: 2/2" in printed


def test_defects_are_found(tmp_path: Path) -> None:
    project = copied("defects", tmp_path)
    printed = python(project, "train.py", "--images", "3000", "--epochs", "6")
    assert re.search(r"^epoch 5/5  train_loss \S+  val_loss \S+  val_f1 \S+$", printed, re.MULTILINE)
    found = json.loads(python(project, "predict.py", "--parts", "1000", "--json"))
    print(f"defects: precision {found['precision']:.3f}, recall {found['recall']:.3f}")
    assert found["recall"] >= 0.6
    assert found["precision"] >= 0.6
    assert sum(map(sum, found["confusion"])) == 1000
    for name in ("val_precision", "val_recall", "val_recall_stain", "val_precision_good"):
        assert len(metrics(project, name)) == 6


def test_the_images_with_defects_are_the_same_everywhere(tmp_path: Path) -> None:
    project = copied("defects", tmp_path)
    say = (
        "from data.surfaces import draw_surfaces as d; i, l = d(300, 5); print(l.bincount().tolist(), i.mean().item())"
    )
    first, second = (python(project, "-c", say) for _ in range(2))
    assert first == second
    good, *bad = json.loads(first.split("] ")[0] + "]")
    assert good > 250
    assert min(bad) >= 1


def test_the_bare_project_trains(tmp_path: Path) -> None:
    project = copied("bare", tmp_path)
    python(project, "train.py")
    found = re.search(r"validation loss ([\d.]+)", python(project, "predict.py"))
    assert found
    assert float(found[1]) < 0.2


def test_the_notebook_trains_as_a_run_does(tmp_path: Path) -> None:
    run = HostPaths(str(tmp_path / "host")).run("train-7f3k")
    script = convert((CHECKOUT / "examples/notebook/train.ipynb").read_text(), "train.ipynb").source
    job: Any = {"notebook": {"path": "train.ipynb", "script": "train.py", "source": script}, "args": []}
    notebooks.lay_out(run, job)
    project = copied("notebook", tmp_path)
    program, *more = notebooks.command(job["notebook"], job["args"], run.ro)
    assert program == "python"
    printed = python(project, *more)
    assert "[cell 3] wall time" in printed
    assert {path.name for path in (project / "notebook").iterdir()} == {"cell-02-1.png", "cell-04-1.png", "train.py"}
    assert json.loads(python(project, "predict.py", "--json"))["acc"] >= 0.95
