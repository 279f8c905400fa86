"""What `ps` shows of each run on a terminal, and in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from gpurun.cli import ps_tables
from tests.support.agent_answers import record

PROGRESS: Any = {
    "t": 1.0, "attempt": 1, "stage": "fit", "epoch": 3, "step": 1200, "max_epochs": 10, "max_steps": None, "batch": 5,
    "batches": 400, "rate": 12.3456789, "left": 250.0, "fraction": 0.625, "metrics": {"val_loss": 0.0123456789},
}  # fmt: skip
ARGS = ["--lr", "0.1", "--batch-size", "64", "--model", "resnet18", "--data", "/data/imagenet"]
GPU: Any = {"index": 0, "uuid": "GPU-a", "name": "A100"}
BEST: Any = {"path": "a.ckpt", "monitor": "val_loss", "value": 0.0123456789, "mode": "min"}
Show = Callable[..., list[str]]


def training(run: str = "train-7f3k", **changes: Any) -> Any:
    told = {"progress": PROGRESS, "args": ARGS, "gpus": [GPU], "gpus_asked": 1, "disk": 1_200_000_000}
    return record(run, **{**told, "checkpoints": {"count": 1, "best": BEST, "last": BEST}, **changes})


def ended(run: str, state: str = "succeeded", **changes: Any) -> Any:
    return training(run, state=state, live=False, ended=9.0, **changes)


def service(run: str, kind: str, **changes: Any) -> Any:
    return record(run, service={"kind": kind, "title": "vision on box", "run": None, "idle": 7200.0}, **changes)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    def shown(*records: Any, tty: bool = True, host: str = "box", answered: bool = True) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: tty, raising=False)
        monkeypatch.setenv("NO_COLOR", "1")
        listed = [ps_tables.Listed(one, host, answered, 100.0) for one in records]
        ps_tables.show(listed, owners=False)
        return capsys.readouterr().out.splitlines()

    monkeypatch.setenv("COLUMNS", "80")
    return shown


def test_ps_shows_the_monitored_metric_and_the_arguments(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    header, line = show(training())
    assert header.split() == ["RUN", "STATE", "GPUS", "SINCE", "PROGRESS", "val_loss", "DISK", "HOST", "ARGS"]
    assert "██████░░░░  62% epoch 3/9 4m left  0.012346  1.2 GB  box   " in line
    assert line.endswith("  --lr 0.1 --batch-size 64 --model resnet18 --data /data/imagenet")


def test_ps_names_each_metric_where_they_differ(show: Show) -> None:
    other = {**BEST, "monitor": "acc", "value": 0.9}
    header, *lines = show(training(), ended("x-2222", checkpoints={"count": 1, "best": other, "last": other}))
    assert "METRIC" in header
    assert "val_loss 0.012346" in lines[0]
    assert "acc 0.9" in lines[1]


@pytest.mark.parametrize("name", ["a", "train", "resnet50-imagenet", "resnet50-imagenet-warmup"])
def test_ps_fits_80_columns_with_the_beginning_of_the_arguments(show: Show, name: str) -> None:
    queued = record(f"{name}-2222", state="queued", gpus_asked=2, args=["--lr", "0.01"])
    header, *lines = show(training(f"{name}-7f3k"), queued, ended(f"{name}-3333", "failed", exit_code=1, reason="exit"))
    assert max(map(len, lines)) <= 80
    assert header.endswith("ARGS")
    assert lines[0].rstrip("…")[-4:].strip() in " ".join(ARGS)
    assert [line.split()[0] for line in lines] == [f"{name}-7f3k", f"{name}-2222", f"{name}-3333"]


def test_each_run_of_ps_stays_on_its_line_where_characters_are_wide(show: Show) -> None:
    best = {**BEST, "monitor": "検証損失"}
    wide = training(args=["--name", "損失関数の実験" * 5], checkpoints={"count": 1, "best": best, "last": best})
    lines = show(wide, training("train-2222"))
    assert lines[1].endswith("…")
    assert max(sum(1 + (char > "\u2e80") for char in line) for line in lines) <= 80


def test_ps_names_the_epoch_where_nothing_else_says_what_a_number_is(show: Show) -> None:
    endless = {**PROGRESS, "fraction": None, "max_epochs": None, "left": None}
    assert "epoch 3 " in show(training("resnet50-imagenet-7f3k", progress=endless))[1]


def test_ps_keeps_a_run_on_its_line_whatever_its_arguments_and_its_metric_are(show: Show) -> None:
    best = {**BEST, "monitor": "val\n\x1b[2Jloss"}
    told = training(args=["a\nb", "\x1b]0;title\x07"], checkpoints={"count": 1, "best": best, "last": best})
    lines = show(told, training("x-2222", step={"doing": "pulling\nx", "seconds": 1.0}))
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)


def test_ps_shows_no_gpu_for_a_run_that_has_ended(show: Show) -> None:
    for tty in (True, False):
        lines = show(training(), ended("old-2222"), tty=tty)[1:]
        assert ["GPU 0" in line for line in lines] == [True, False]


def test_ps_shows_what_is_done_before_the_start_and_for_how_long(show: Show) -> None:
    step = {"doing": "pulling pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime", "since": 20.0, "seconds": 80.0}
    header, line = show(record(state="preparing", step=step, gpus_asked=1))
    assert "PROGRESS" in header
    assert "preparing  wants 1  1m     pulling pytorch/pytorch…, 1m 20s" in line


def test_ps_lists_services_apart_from_jobs(show: Show) -> None:
    board, old = service("tensorboard-1111", "tensorboard"), service("shell-2222", "shell", state="stopped", live=False)
    lines = show(board, training(), old)
    assert lines[0].startswith("RUN ")
    assert lines[1].startswith("train-7f3k")
    assert lines[2] == ""
    assert lines[3].split() == ["SERVICE", "STATE", "GPUS", "SINCE", "DISK", "HOST", "ABOUT"]
    assert [line.split()[0] for line in lines[4:]] == ["tensorboard-1111", "shell-2222"]
    assert lines[4].endswith("vision")
    assert show(board)[0].startswith("SERVICE ")


def test_ps_in_a_pipe_is_one_table_of_the_same_columns_jobs_first(show: Show) -> None:
    lines = show(service("tensorboard-1111", "tensorboard"), training(), tty=False)
    assert lines[0].split() == ["RUN", "STATE", "GPUS", "SINCE", "PROGRESS", "DISK", "HOST"]
    assert [line.split()[0] for line in lines[1:]] == ["train-7f3k", "tensorboard-1111"]
    assert show(record(), tty=False)[0].split() == ["RUN", "STATE", "GPUS", "SINCE", "DISK", "HOST"]
    assert show(tty=False) == []


def test_ps_marks_an_attempt_that_was_left_behind_and_what_is_only_last_known(show: Show) -> None:
    behind = training(left_behind=True)
    assert "running (attempt 1)" in show(behind)[1]
    assert "running? (attempt 1)" in show(behind, answered=False)[1]


@pytest.mark.parametrize("state", ["succeeded", "failed", "stopped", "timed_out", "lost"])
def test_run_that_has_ended_is_not_shown_as_running_when_its_host_is_silent(show: Show, state: str) -> None:
    (line,) = show(ended("old-2222", state), answered=False)[1:]
    assert state.replace("_", " ") in line
    assert "?" not in line
