"""Runs side by side, from what this laptop knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.commands import compare
from gpurun.store import run_names, run_store
from tests.support.part import part

PATCH = """\
diff --git a/train.py b/train.py
index 111..222 100644
--- a/train.py
+++ b/train.py
@@ -1 +1 @@
-lr = {old}
+lr = {new}
diff --git "a/na\\303\\257ve.py" "b/na\\303\\257ve.py"
--- "a/na\\303\\257ve.py"
+++ "b/na\\303\\257ve.py"
@@ -1 +1 @@
-a
+diff --git a/no b/header
"""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], {}),
        (["--lr", "1e-3", "-b", "32", "--fast"], {"--lr": "1e-3", "-b": "32", "--fast": "yes"}),
        (["--lr=1e-3", "--momentum", "-0.9"], {"--lr": "1e-3", "--momentum": "-0.9"}),
        (["fit", "--trainer.max_epochs=3"], {"1": "fit", "--trainer.max_epochs": "3"}),
        (["model=vit", "+opt.lr=1", "data/x=y"], {"model": "vit", "+opt.lr": "1", "data/x": "y"}),
        (["--layers", "64", "32", "--tag", "a=b", "c=d"], {"--layers": "64 32", "--tag": "a=b", "c": "d"}),
        (["--lr", "1", "--lr", "2", "--empty="], {"--lr": "1 2", "--empty": ""}),
        (["a b", "--", "$(x)"], {"1": "a b", "2": "--", "3": "$(x)"}),
    ],
)
def test_arguments_by_name(args: list[str], told: dict[str, str]) -> None:
    assert compare.arguments(args) == told


def submitted(run: str, root: Path | str = "/gone", **more: Any) -> run_store.RunEntry:
    known = {"id": run, "name": "train", "created": 1.0, "project": {"name": "vision", "root": str(root)}}
    manifest = more.pop("manifest", None)
    return run_store.add(part({**known, "script": "train.py", **more}), "box", manifest)


def git_of(commit: str, patch: str | None = None) -> Any:
    return {"commit": commit, "branch": "main", "dirty": patch is not None, "patch": patch}


def record(run: str, **more: Any) -> Any:
    return {"id": run, "name": "train", "project": "vision", "created": 1.0, "state": "succeeded", **more}


def values(rows: list[compare.Row]) -> dict[str, tuple[Any, ...]]:
    return {f"{row.section}.{row.name}": row.values for row in rows}


@pytest.mark.usefixtures("home")
def test_everything_that_one_of_them_has() -> None:
    for run, lr, loss in (("a-2222", "0.1", 0.5), ("b-2222", "0.2", 0.25)):
        submitted(run, args=["--lr", lr], git=git_of("c0ffee" * 7))
        gpu = {"index": 0, "name": "NVIDIA A100"}
        reached = {
            "metrics": {"loss": loss, "odd": "x"},
            "progress": {"epoch": 3, "step": 30},
            "started": 10.0,
            "ended": 12.5,
        }
        run_store.update(
            [record(run, gpus=[gpu, gpu], environment={"torch": "2.8.0"}, runtime="docker", **reached)], "box"
        )
    before = {"attempt": 1, "state": "failed", "started": 1.0, "ended": 9.0, "ran": 7.0}
    again = {"attempt": 2, "attempts": [before], "started": 10.0, "ended": 12.5}
    run_store.update([record("c-2222", metrics={"acc": 1}, state="failed", reason="oom", **again)], "other")
    found = values(compare.compare([run_names.resolve(run) for run in ("a-2222", "b-2222", "c-2222")]))
    assert found["arguments.--lr"] == ("0.1", "0.2", None)
    assert found["code.commit"] == ("c0ffeec0ff", "c0ffeec0ff", None)
    assert found["environment.gpus"] == ("2 x NVIDIA A100", "2 x NVIDIA A100", None)
    assert found["environment.host"] == ("box", "box", "other")
    assert found["environment.torch"] == ("2.8.0", "2.8.0", None)
    assert found["result.state"] == ("succeeded", "succeeded", "failed")
    assert found["result.reason"] == (None, None, "oom")
    assert found["result.seconds"] == (2.5, 2.5, 9.5)  # of all attempts together
    assert found["metrics.loss"] == (0.5, 0.25, None)
    assert found["metrics.acc"] == (None, None, 1)
    assert "metrics.odd" not in found


def test_rows_know_whether_they_differ() -> None:
    rows = compare.rows([{section: {"x": 1} for section in compare.SECTIONS}] * 2)
    assert [row.differs for row in rows] == [False] * 5
    assert compare.Row("code", "x", (1, None)).differs
    unlike = [compare.Row("code", compare.UNLIKE_FIRST, (None, said)) for said in ("nothing", "train.py")]
    assert [row.differs for row in unlike] == [False, True]


def test_edits_of_a_patch_by_file() -> None:
    told = compare.edited(PATCH.format(old=1, new=2).encode())
    assert list(told) == ["train.py", "na\\303\\257ve.py"]
    assert compare.edited(None) == {}


@pytest.mark.usefixtures("home")
def test_code_of_one_commit_differs_in_what_was_changed_since() -> None:
    one = submitted("a-2222", git=git_of("c" * 40, PATCH.format(old=1, new=2)))
    other = submitted("b-2222", git=git_of("c" * 40, PATCH.format(old=1, new=3)))
    clean = submitted("c-2222", git=git_of("c" * 40))
    assert compare.difference(one, other) == "train.py"
    assert compare.difference(one, clean) == "na\\303\\257ve.py, train.py"
    assert compare.difference(clean, submitted("d-2222", git=git_of("c" * 40))) == "no file that git tracks"


@pytest.mark.usefixtures("home")
def test_same_files_are_the_same_code_whatever_git_says() -> None:
    sent = {"digest": "d" * 64}
    one = submitted("a-2222", git=git_of("a" * 40), manifest=sent)
    assert compare.difference(one, submitted("b-2222", manifest=sent)) == "nothing"


@pytest.mark.usefixtures("home")
def test_what_is_not_known_is_not_guessed() -> None:
    one = submitted("a-2222", git=git_of("a" * 40))
    assert compare.difference(one, submitted("b-2222")) is None
    assert compare.difference(one, submitted("c-2222", git=git_of("b" * 40))) is None, "no such repository is here"
    run_store.update([record("d-2222", git={"commit": "a" * 40, "dirty": True})], "box")
    assert compare.difference(one, run_names.resolve("d-2222")) is None, "its patch is on another laptop"
