"""What is still told of a run that was removed from its host: by the laptop's store, and by what a real fetch brought."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpurun.agent.state import journal
from gpurun.cli import app
from gpurun.store import run_questions, run_store
from tests.integration.fetch.conftest import FetchedRun
from tests.support.part import part

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

LOG = b'epoch 1\nTraceback (most recent call last):\n  File "train.py", line 3\nValueError: no such \xff\n'


@pytest.fixture(autouse=True)
def _project(run: FetchedRun, laptop: EmbeddedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that this laptop submitted from the folder that it is in, and that has failed."""
    (tmp_path / "gpurun.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    job: Any = {
        "id": run.id,
        "name": "train",
        "created": 1.0,
        "command": ["python", "train.py", "--lr", "1"],
    }
    job |= {"args": ["--lr", "1"], "project": {"name": "vision", "root": str(tmp_path)}}
    run_store.add(job, laptop.alias)
    run.job.write("weights.ckpt", b"weights")
    run.job.write("log", LOG, to="out")
    run.job.write("progress.jsonl", json.dumps({"metrics": {"loss": 0.25}}).encode() + b"\n", to="out")
    journal.record_end(run.job.paths, "failed", "exit", exit_code=1)


def remove(run: FetchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove it from its host as a user does; from then on no host can be asked."""
    assert app.main(["rm", run.id, "-y"]) == 0
    monkeypatch.setenv("GPURUN_SSH", "false")


def test_status_of_a_removed_run_shows_what_store_and_folder_know(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    capsys.readouterr()
    assert app.main(["status", run.id, "--exit-code"]) == 1
    shown = capsys.readouterr().out
    today = time.strftime("%Y-%m-%d")
    assert f"{run.id} failed with exit code 1" in shown
    assert "ValueError: no such" in shown
    assert "loss 0.25" in shown
    assert "python train.py --lr 1" in shown
    assert f"{run.id} was removed from demo on {today}; its files are in fetched/{run.id}\n" in shown
    assert "gpurun resume" not in shown
    assert app.main(["status", "train", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"]["state"], told["exit"], told["removed"]["folder"]) == ("failed", 1, str(run.to))


def test_logs_of_a_removed_run_are_the_fetched_ones_byte_for_byte(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    capfdbinary.readouterr()
    assert app.main(["logs", run.id]) == 0
    assert capfdbinary.readouterr().out == LOG
    assert app.main(["logs", run.id, "-n", "1"]) == 0
    assert capfdbinary.readouterr().out == b"ValueError: no such \xff\n"
    assert app.main(["logs", run.id, "--attempt", "2"]) == 2
    assert b"has no attempt 2" in capfdbinary.readouterr().err
    assert app.main(["logs", run.id, "-t"]) == 2


@pytest.mark.parametrize(("started", "shown"), [(True, b""), (False, b"installing\n")])
def test_logs_of_a_removed_run_are_those_of_preparing_only_where_it_never_started(
    started: bool, shown: bytes, run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any
) -> None:
    run.job.write("log", b"", to="out")
    run.job.write("prepare.log", b"installing\n", to="")
    run.fetch()
    remove(run, monkeypatch)
    file = run_store.folder() / f"{run.id}.removed"
    told = json.loads(file.read_text())
    told["record"]["started"] = 2.0 if started else None
    file.write_text(json.dumps(told))
    capfdbinary.readouterr()
    assert app.main(["logs", run.id]) == 0
    assert capfdbinary.readouterr().out == shown
    assert app.main(["logs", run.id, "--build"]) == 0
    assert capfdbinary.readouterr().out == b"installing\n"


def test_logs_of_an_earlier_attempt_of_a_removed_run(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run.job.write("1/log", b"first\n", to="attempts")
    (Path(run.job.paths.exit)).unlink()
    journal.record(run.job.paths, "attempt", number=2, why="resume", earlier=[{"attempt": 1, "state": "failed"}])
    journal.record_end(run.job.paths, "succeeded", "exit", exit_code=0)
    run.fetch()
    remove(run, monkeypatch)
    capfdbinary.readouterr()
    assert app.main(["logs", run.id, "--attempt", "1"]) == 0
    assert capfdbinary.readouterr().out == b"first\n"
    assert app.main(["logs", run.id]) == 0
    assert capfdbinary.readouterr().out == LOG


@pytest.mark.parametrize("odd", [{"project": None}, {"git": {"commit": 5}}, {"command": [1]}, {"resources": []}])
def test_status_of_a_removed_run_whose_fetched_job_is_odd_shows_the_rest(
    odd: Any, run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    file = run_store.folder() / f"{run.id}.removed"
    file.write_text(json.dumps({**json.loads(file.read_text()), "job": None}))  # submitted from another laptop
    job = run.to / "_gpurun/job.json"
    job.write_text(json.dumps({**json.loads(job.read_text()), **odd}))
    capsys.readouterr()
    assert app.main(["status", run.id]) == 0
    assert f"{run.id} failed with exit code 1" in capsys.readouterr().out


def test_removed_run_that_was_never_fetched_says_so(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(run, monkeypatch)
    capsys.readouterr()
    assert app.main(["status", run.id]) == 0
    shown = capsys.readouterr().out
    assert "failed with exit code 1" in shown
    assert "; none of its files were fetched" in shown
    for verb in ("logs", "path"):
        assert app.main([verb, run.id]) == 2
        said = capsys.readouterr().err
        assert "none of its files were fetched" in said
        assert f"gpurun status {run.id}" in said


def test_verbs_that_need_the_host_say_in_the_same_words_that_the_run_was_removed(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    capsys.readouterr()
    for verb in ("fetch", "stop", "resume", "wait", "shell", "rm"):
        assert app.main([verb, run.id]) == 2
        said = capsys.readouterr().err
        assert f"{run.id} was removed from demo on " in said
        assert f"its files are in fetched/{run.id}" in said
        assert f"gpurun status {run.id}" in said


def test_removed_run_whose_folder_is_gone_or_incomplete_says_so(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    (run.to / "weights.ckpt").unlink()
    capsys.readouterr()
    assert app.main(["status", run.id]) == 0
    assert f"what was fetched of it is in fetched/{run.id}\n" in capsys.readouterr().out
    shutil.rmtree(run.to)
    assert app.main(["status", run.id]) == 0
    assert f"its files were fetched to fetched/{run.id}, which is not there any more" in capsys.readouterr().out


def test_path_of_a_removed_run_is_the_fetched_folder(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    capsys.readouterr()
    assert app.main(["path", run.id]) == 0
    assert capsys.readouterr().out == f"{run.to}\n"


def test_removed_runs_are_compared_and_listed(
    run: FetchedRun, laptop: EmbeddedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run.fetch()
    remove(run, monkeypatch)
    job = {"id": "train-2222", "name": "train", "created": 2.0, "args": ["--lr", "2"]}
    run_store.add(part({**job, "project": {"name": "vision", "root": str(tmp_path)}}), laptop.alias)
    capsys.readouterr()
    assert app.main(["compare", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["runs"]
    assert [(one["id"], one["arguments"]["--lr"], one["result"]["exit code"]) for one in told] == [
        (run.id, "1", 1),
        ("train-2222", "2", None),
    ]
    assert app.main(["compare", run.id, "train-2222"]) == 0
    assert f"{run.id} was removed from demo on " in capsys.readouterr().err
    assert app.main(["ps", "--removed"]) == 0
    shown = capsys.readouterr().out
    assert run.id in shown
    assert "failed (1)" in shown
    assert f" fetched/{run.id}\n" in shown, "as it is typed from here"
    assert shown.splitlines()[0].split() == ["RUN", "STATE", "REMOVED", "HOST", "PROJECT", "FILES"]
    assert app.main(["ps", "--removed", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert (listed["id"], listed["removed"]["folder"]) == (run.id, str(run.to))


def test_removed_runs_of_one_host_are_listed_where_it_is_named(
    run: FetchedRun, laptop: EmbeddedHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(run, monkeypatch)
    capsys.readouterr()
    for host, listed in ((laptop.alias, [run.id]), ("spare", [])):
        assert app.main(["ps", "--removed", "-H", host, "--json"]) == 0
        assert [one["id"] for one in json.loads(capsys.readouterr().out)["runs"]] == listed


def test_run_that_its_host_lost_is_told_as_far_as_it_is_known(
    run: FetchedRun, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Another laptop removed it, or somebody by hand."""
    run.fetch()
    run_questions.ask(run.wire, "status", {"run": run.id}, [run.id])
    shutil.rmtree(run.job.root)
    assert app.main(["status", run.id]) == 0
    told = f"{run.id} is not on demo any more; its files are in fetched/{run.id}"
    assert told in capfdbinary.readouterr().out.decode(errors="replace")
    assert app.main(["logs", run.id]) == 0
    assert capfdbinary.readouterr().out == LOG
