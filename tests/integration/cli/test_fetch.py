"""What `gpurun fetch` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpurun.cli import app
from gpurun.cli.fetch import printable
from gpurun.commands import runs
from gpurun.errors import HostUnreachable
from gpurun.remote.wire import Wire
from gpurun.store import checkpoint_store, run_store
from tests.integration.fetch.conftest import FetchedRun, laptop, run
from tests.support.part import part
from tests.unit.agent.state.test_checkpoints import save
from tests.unit.store.test_checkpoint_store import line

__all__ = ["laptop", "run"]


@pytest.fixture
def project(run: FetchedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of the run, as the folder that we are in."""
    (tmp_path / "gpurun.toml").touch()
    monkeypatch.chdir(tmp_path)
    job = {"id": run.id, "name": "train", "created": 1.0, "project": {"name": "p", "root": str(tmp_path)}}
    run_store.add(part(job), "demo")
    return tmp_path


def gpurun(*words: str) -> int:
    return app.main(list(words))


@pytest.mark.usefixtures("project")
def test_folder_that_is_a_file_is_told_as_that_file(run: FetchedRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun("fetch", run.id, "-o", "gpurun.toml") == 2
    said = capsys.readouterr().err
    assert "gpurun.toml is a file" in said
    assert f"next: gpurun fetch {run.id} -o DIR" in said
    assert gpurun("fetch", run.id, "--only", "*.ckpt", "-o", "gpurun.toml") == 2
    assert f"next: gpurun fetch {run.id} --only '*.ckpt' -o DIR" in capsys.readouterr().err


def test_the_newest_run_comes_below_the_project(
    run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.job.write("a\x1b[31m", b"12")
    (run.job.root / "workspace" / "out").symlink_to("/etc")
    run.job.end()
    assert gpurun("fetch") == 0
    said = capsys.readouterr()
    assert said.out == f"{run.to}\n"
    assert f"{run.id}: 4 files" in said.err
    assert "out: a link that points outside the workspace, to /etc" in said.err
    assert (project / "fetched" / ".gitignore").read_text() == "*\n"
    assert gpurun("fetch") == 0
    assert "nothing new" in capsys.readouterr().err


def test_as_json(run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.job.write("x", b"12")
    run.job.end()
    assert gpurun("fetch", "--json", "--only", "x", "-o", "here") == 0
    told = json.loads(capsys.readouterr().out)["runs"][0]
    assert (told["id"], told["folder"], told["bytes"]) == (run.id, str(project / "here"), 2)
    assert [one["path"] for one in told["files"]] == ["x"]


def test_all_takes_no_run(run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun("fetch", "--all", run.id) == 2
    run.job.end()
    assert gpurun("fetch", "--all") == 0
    assert gpurun("fetch", "--all") == 0
    assert "all runs of this project are fetched" in capsys.readouterr().err


def test_fetch_of_all_in_a_subfolder_names_the_project_that_has_the_runs(
    run: FetchedRun, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "gpurun.toml").unlink()
    (project / "models").mkdir()
    monkeypatch.chdir(project / "models")
    assert gpurun("fetch", "--all") == 0
    said = capsys.readouterr().err
    assert f"cd {project}: the run {run.id} is known there" in said
    assert "no run of the project models is known here" in said


def test_globs_that_nothing_matches_are_told_with_what_there_is(
    run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.job.write("checkpoints/a.ckpt", b"12")
    assert gpurun("fetch", "--only", "*.pt", "--only", "logs/") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"nothing that {run.id} wrote matches *.pt or logs/" in said.err
    assert "It wrote checkpoints/a.ckpt." in said.err
    assert not run.to.exists()
    run.to.mkdir()  # by somebody else, before
    assert gpurun("fetch", "--only", "*.pt") == 1
    assert run.to.exists()


@pytest.mark.parametrize(
    ("name", "shown"), [("a b", "a b"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\udcff", "\\udcff"), ("é", "é")]
)
def test_names_cannot_play_with_the_terminal(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_best_checkpoint_and_what_it_was_judged_by(
    run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpurun("fetch", "--best") == 1
    assert "has saved no checkpoint yet" in capsys.readouterr().err
    save(run.job, "a.ckpt", b"12", best=True, monitor="val_loss", mode="min", value=0.25, epoch=3)
    assert gpurun("fetch", "--best") == 0
    said = capsys.readouterr()
    assert said.out == f"{run.to}/a.ckpt\n"
    assert f"{run.id}: val_loss 0.25 (min), epoch 3, step 10, 2 B" in said.err
    assert gpurun("fetch", "--best", "-o", "mine.ckpt", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["checkpoints"]
    assert (told["file"], told["monitor"], told["path"]) == ("mine.ckpt", "val_loss", "a.ckpt")
    assert Path("mine.ckpt").read_bytes() == b"12"


def test_last_checkpoint_of_a_training_that_monitors_nothing(
    run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run.job, "a.ckpt", b"12")
    assert gpurun("fetch", "--last", "-o", "here") == 0
    assert f"{run.id}: nothing was monitored, epoch 0, step 10" in capsys.readouterr().err
    assert (project / "here" / "a.ckpt").read_bytes() == b"12"


def test_a_checkpoint_that_the_next_submit_would_send_is_told(
    run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run.job, "a.ckpt", b"12", monitor="loss", mode="min", value=0.5, step=1)
    (project / "models").mkdir()
    assert gpurun("fetch", "--best", "-o", "models/best.ckpt") == 0
    assert "a line `/models/best.ckpt` in .gpurunignore keeps it here" in capsys.readouterr().err
    (project / ".gpurunignore").write_text("/models/best.ckpt\n")
    assert gpurun("fetch", "--best", "-o", "models/best.ckpt") == 0
    assert gpurun("fetch", "--best") == 0
    assert ".gpurunignore" not in capsys.readouterr().err


@pytest.fixture
def moved(run: FetchedRun, project: Path, monkeypatch: pytest.MonkeyPatch) -> FetchedRun:
    """It went on from the host `box`, which does not answer, and had its best checkpoint there."""
    save(run.job, "a.ckpt", b"12", monitor="val_loss", mode="min", value=0.5, step=20)
    left = line("best.ckpt", "123", best=True, step=10, monitor="val_loss", mode="min", value=0.25)
    checkpoint_store.update({"ledgers": {run.id: {"host_id": "h1", "from": 0, "to": 9, "lines": [left]}}}, "box")
    answering = runs.wire_to

    def wire_to(host: str) -> Wire:
        if host == "box":
            raise HostUnreachable("box: no route to it", "", where="box")
        return answering(host)

    monkeypatch.setattr(runs, "wire_to", wire_to)
    return run


def test_best_one_that_is_on_a_host_that_is_gone_is_told(moved: FetchedRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun("fetch", "--best") == 0
    said = capsys.readouterr()
    assert said.out == f"{moved.to}/a.ckpt\n"
    assert "the best of all, best.ckpt (step 10, val_loss 0.25), is on box: box: no route to it" in said.err


def test_best_one_of_a_host_that_is_gone_may_have_been_fetched(
    moved: FetchedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = moved.to.with_name(f"{moved.to.name}-on-box")
    beside.mkdir(parents=True)
    (beside / "best.ckpt").write_bytes(b"123")
    assert gpurun("fetch", "--best") == 0
    assert capsys.readouterr().out == f"{beside}/best.ckpt\n"


def test_best_one_is_taken_from_the_copy_that_the_run_went_on_from(
    moved: FetchedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    save(moved.job, "carried.ckpt", b"123", monitor="val_loss", mode="min", value=0.25, step=10)
    assert gpurun("fetch", "--best") == 0
    assert capsys.readouterr().out == f"{moved.to}/carried.ckpt\n"


@pytest.mark.parametrize("wrong", [("--last",), ("--only", "x"), ("--watch",), ("--all",)])
def test_what_does_not_go_with_best(wrong: tuple[str, ...], project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpurun("fetch", "--best", *wrong) == 2
    assert "error: --best" in capsys.readouterr().err


def test_run_that_its_host_does_not_know_is_not_told_to_go_on(
    run: FetchedRun, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.job.life.close()
    assert gpurun("fetch", run.id) == 0
    said = capsys.readouterr().err
    assert f"nobody knows whether {run.id} goes on" in said
    assert "follows it to its end" not in said
