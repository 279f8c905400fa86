"""The list that a fetch works from."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.state import journal
from gpurun.agent.verbs import fetched, outputs
from tests.support.run_folder import RUN, RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def ask(run: RunFolder) -> Any:
    return outputs.answer({"run": RUN}, run.host)


def test_log_and_record_come_first_under_a_folder_of_their_own(run: RunFolder) -> None:
    run.write("log", b"epoch 1\n", to="out")
    run.write("stop", b"", to="out")
    run.write("env", b"SECRET=1", to="ro")
    run.write("best.ckpt", b"weights")
    answer = ask(run)
    assert [(file["path"], file["as"]) for file in answer["files"]] == [
        ("out/log", "_gpurun/log"),
        ("events.jsonl", "_gpurun/events.jsonl"),
        ("job.json", "_gpurun/job.json"),
        ("workspace/best.ckpt", "best.ckpt"),
    ]
    assert answer["root"] == run.paths.root
    assert answer["live"] is True
    assert json.dumps(answer)


def test_a_session_whose_files_went_on_says_where(run: RunFolder) -> None:
    assert ask(run)["skipped"] == []
    run.write("notebook.ipynb", b"{}")
    shutil.rmtree(run.paths.workspace)
    journal.record(run.paths, "note", message="its files continue in jupyter-9k2m", went_on="jupyter-9k2m")
    (skipped,) = ask(run)["skipped"]
    assert skipped == {"path": ".", "why": "its files continue in jupyter-9k2m: fetch that run", "lost": False}


def test_a_job_cannot_smuggle_a_link_in_as_its_log(run: RunFolder) -> None:
    run.write("env", b"SECRET=1", to="ro")
    (run.root / "out" / "log").symlink_to("../ro/env")
    assert "out/log" not in [file["path"] for file in ask(run)["files"]]


def test_a_checkpoint_that_is_open_for_writing_is_marked(run: RunFolder) -> None:
    run.write("old.ckpt")
    run.write("new.ckpt", at=time.time() + 0.05)
    marks = {file["as"]: file["writing"] for file in ask(run)["files"]}
    assert marks["new.ckpt"] == "it was written a moment ago"


def test_fetched_is_only_a_whole_fetch_of_an_ended_run(run: RunFolder) -> None:
    def mark(what: str) -> object:
        fetched.answer({"run": RUN, "what": what, "attempt": 1, "stamp": None}, run.host)
        return json.loads(Path(run.paths.fetched).read_text())["t"]

    assert mark("all") is None  # it lives: it will write more
    run.end()
    assert mark("some") is None
    first = mark("all")
    assert first is not None
    assert mark("some") == first


def test_what_came_of_an_earlier_attempt_says_nothing_of_the_present_one(run: RunFolder) -> None:
    run.end()
    journal.record(run.paths, "attempt", number=2, why="resume", checkpoint=None)
    Path(run.paths.exit).unlink()
    run.end()
    assert fetched.answer({"run": RUN, "what": "all", "attempt": 1, "stamp": None}, run.host) == {"counts": False}
    assert not Path(run.paths.fetched).exists()
    assert fetched.answer({"run": RUN, "what": "all", "attempt": 2, "stamp": None}, run.host) == {"counts": True}


@pytest.mark.parametrize("name", ["../x", "gone-7f3k", "", "a/b"])
def test_an_unknown_run_is_refused(run: RunFolder, name: str) -> None:
    with pytest.raises(AgentError, match="the host has no run"):
        outputs.answer({"run": name}, run.host)
