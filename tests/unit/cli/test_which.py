"""What `gpurun which` says of a file, without a host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpurun.cli import app
from gpurun.store import checkpoint_store, run_store
from tests.unit.store.test_checkpoint_store import RUN, answer, line, record

JUDGED: Any = {"monitor": "val_loss", "mode": "min", "value": 0.25, "epoch": 3, "step": 120, "t": 1_700_000_000.0}


@pytest.fixture(autouse=True)
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in; a run is known that saved one checkpoint under two names."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    run_store.update([record(args=["--lr", "1e 3"], command=["python", "train.py", "--lr", "1e 3"])], "box")
    best = line("checkpoints/a.ckpt", "weights", best=True, attempt=2, **JUDGED)
    checkpoint_store.update(answer(best, line("checkpoints/last.ckpt", "weights", **JUDGED)), "box")
    return folder


def which(*words: str) -> int:
    return app.main(["which", *words])


def test_a_renamed_copy_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.bin").write_text("weights")
    shutil.copy(folder / "x.bin", folder / "copy of it")
    assert which("copy of it") == 0
    shown = capsys.readouterr().out
    first, *_ = shown.splitlines()
    assert first == (
        f"copy of it is checkpoints/a.ckpt of {RUN}, epoch 3, step 120, val_loss 0.25 (min), commit c0ffee"
    )
    assert f"{RUN}, attempt 2 on box, running\n" in shown
    assert ", epoch 3, step 120, 7 B\n" in shown
    assert "val_loss 0.25 (min), the best until then\n" in shown
    assert "vision at c0ffee (main)\n" in shown
    assert "python train.py --lr '1e 3'\n" in shown
    assert f"checkpoints/last.ckpt of {RUN}\n" in shown


def test_of_two_names_the_files_own_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "last.ckpt").write_text("weights")
    assert which("last.ckpt") == 0
    assert f"last.ckpt is checkpoints/last.ckpt of {RUN}, epoch 3" in capsys.readouterr().out


def test_a_run_that_was_removed_is_still_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x").write_text("weights")
    run_store.note_removed(RUN, now=1_700_000_000.0)
    assert which("x") == 0
    shown = capsys.readouterr().out
    assert f"{RUN} was removed from box on 2023-11-1" in shown
    assert "none of its files were fetched" in shown.replace("\n", " ")
    assert "vision at c0ffee (main)" in shown


def test_one_that_is_not_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x").write_text("other weights")
    (folder / "y").write_text("weights")
    assert which("x", "y") == 1
    said = capsys.readouterr()
    assert "x: no run that is known here has saved it (SHA-256 " in said.err
    assert "gpurun ps -a" in said.err
    assert f"y is checkpoints/a.ckpt of {RUN}" in said.out


def test_which_of_several_files_is_one_line_for_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x", "y"):
        (folder / name).write_text("weights")
    assert which("x", "y") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" is ")[0] for line in lines] == ["x", "y"]


@pytest.mark.parametrize(("name", "why"), [("gone.ckpt", "No such file"), (".", "is a folder")])
def test_what_is_no_file(name: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert which(name) == 2
    assert why in capsys.readouterr().err


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x").write_text("weights")
    assert which("x", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["files"]
    first: Any = told["found"][0]
    assert (told["file"], first["run"], first["git"]["commit"]) == ("x", RUN, "c0ffee")
    assert (first["checkpoint"]["path"], first["checkpoint"]["value"]) == ("checkpoints/a.ckpt", 0.25)
    assert first["args"] == ["--lr", "1e 3"]
