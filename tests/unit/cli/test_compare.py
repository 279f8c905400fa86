"""What `gpurun compare` prints."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from gpurun.cli import app
from gpurun.commands.compare import UNLIKE_FIRST
from gpurun.store import run_store
from tests.unit.commands.test_compare import record, submitted


@pytest.fixture(autouse=True)
def _runs(home: object) -> None:
    for run, lr, loss in (("train-2222", "1e-3", 0.5), ("train-3333", "1e-2, twice", 0.123456789)):
        submitted(run, args=["--lr", lr, "--epochs", "3"])
        run_store.update([record(run, metrics={"val_loss": loss}, progress={"step": 12_000})], "box")
    run_store.update([record("live-2222", state="running")], "box")


def compare(*words: str) -> int:
    return app.main(["compare", *words])


def test_a_table_with_what_differs_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("train-2222", "train-3333") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["train-2222", "train-3333"]
    assert lines[1] == ["arguments"]
    assert ["*", "--lr", "1e-3", "1e-2,", "twice"] in lines
    assert ["--epochs", "3", "3"] in lines
    assert ["step", "12,000", "12,000"] in lines
    assert ["*", "val_loss", "0.5", "0.12346"] in lines


def test_only_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--diff", "train-2222", "train-3333") == 0
    shown = capsys.readouterr().out
    assert "--lr" in shown
    assert "--epochs" not in shown


def test_csv_has_a_line_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("train-2222", "train-3333", "live-2222", "--csv") == 0
    one, other, live = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (one["run"], one["arguments.--lr"], one["metrics.val_loss"]) == ("train-2222", "1e-3", "0.5")
    assert (other["arguments.--lr"], other["metrics.val_loss"]) == ("1e-2, twice", "0.123456789")
    assert (live["result.state"], live["arguments.--lr"]) == ("running", "")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("train-2222", "train-3333", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["id"] for run in told["runs"]] == ["train-2222", "train-3333"]
    assert told["runs"][1]["metrics"] == {"val_loss": 0.123456789}
    assert "arguments.--lr" in told["differ"]
    assert "arguments.--epochs" not in told["differ"]


def test_what_may_have_changed_since_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("train-2222", "live-2222") == 0
    assert "live-2222 was running when it was last seen, 0s ago" in capsys.readouterr().err


def test_on_a_terminal_what_does_not_fit_beside_stands_below_and_no_id_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [f"a-training-with-a-name-{at}222" for at in range(2, 6)]
    for run in ids:
        submitted(run, args=["--lr", "1e-3"])
        run_store.update([record(run, metrics={"val_loss": 0.5})], "box")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert compare(*ids) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if "training" in line] == [ids[:2], ids[2:]]
    assert sum("val_loss" in line for line in lines) == 2


def test_without_names_the_newest_two_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "vision"
    root.mkdir()
    monkeypatch.chdir(root)
    submitted("a-2222", root, created=3.0)
    assert compare() == 2
    assert "fewer than 2 runs of the project vision" in capsys.readouterr().err
    submitted("b-2222", root, created=2.0)
    submitted("c-2222", root, created=1.0)
    submitted("board-2222", root, created=4.0, service={"kind": "tensorboard"})
    assert compare() == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["b-2222", "a-2222"], (
        "the older one is what the other is held against"
    )


def test_code_of_which_nobody_knows_how_it_differs(capsys: pytest.CaptureFixture[str]) -> None:
    known, unknown = ({"commit": "a" * 40, "dirty": False, "branch": "main"}, None)
    submitted("a-2222", git=known)
    submitted("b-2222", git=known)
    submitted("c-2222", git=unknown)
    assert compare("a-2222", "b-2222", "c-2222") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if UNLIKE_FIRST in line)
    assert [cell.strip() for cell in line.split(UNLIKE_FIRST)[1].split("  ")[-2:]] == [
        "no file that git tracks",
        "not known",
    ]


@pytest.mark.parametrize("words", [["train-2222"], ["train-2222", "train-2222"], ["train-2222", "x", "--csv"], []])
def test_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(*words) == 2
    assert compare("train-2222", "train-3333", "--csv", "--json") == 2


def test_it_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    submitted("long-2222", args=["--name", "x" * 200])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert compare("train-2222", "train-3333", "long-2222") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
