"""Runs that are services: what lies in their ro/, what is left of it, and which session goes on where another ended."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpurun.agent import vocabulary as words
from gpurun.agent.lifecycle import preparation
from tests.support.agent_host import AgentHost
from tests.support.run_folder import RunFolder
from tests.unit.agent.setup.test_services import make_job, own_locks

__all__ = ["own_locks"]


def test_two_that_begin_at_once_do_not_share_what_another_left(tmp_path: Path) -> None:
    names = [f"file{number}.py" for number in range(500)]
    last = RunFolder(tmp_path, "shell-1111", **make_job(words.SHELL, created=1.0))
    for name in names:
        last.submit(name, b"old")
    last.write("notes", b"mine")
    last.end()
    runs = [RunFolder(tmp_path, f"shell-{at}", **make_job(words.SHELL, created=2.0)) for at in ("2222", "3333")]
    for run in runs:
        os.rmdir(run.paths.workspace)
        for at, name in enumerate(names):
            run.write(name, b"old" if at % 2 else b"new", to="snapshot")

    def begin(run: RunFolder) -> bool:
        preparation.make_workspace(run.paths, json.loads(Path(run.paths.job).read_text()), lambda: None)
        assert {name for name in names if not Path(run.paths.workspace, name).exists()} == set()
        return Path(run.paths.workspace, "notes").exists()

    with ThreadPoolExecutor() as both:
        assert sorted(both.map(begin, runs)) == [False, True]


def test_a_session_goes_on_with_the_files_of_the_last_one(agent: AgentHost) -> None:
    """From start to end, by the agent itself: two sessions without an engine, in which nobody opens a shell."""
    service = {"kind": words.SHELL, "title": "vision on box", "idle": 60.0, "run": None}
    first = agent.submit("the code = 1", command=[], service=service)
    agent.until_running(first, b"the session is open")
    Path(first.workspace, "notes").write_text("mine")
    Path(first.workspace, "train.py").write_text("changed there")
    agent.ask("stop", runs=[first.id], grace=1, force=True)
    agent.wait(first)
    second = agent.submit("the code = 2", command=[], service=service)
    record = agent.until_running(second, b"the session is open")
    assert Path(second.workspace, "notes").read_text() == "mine"
    assert Path(second.workspace, "train.py").read_text() == "changed there"
    assert Path(second.workspace, "train.py.from-laptop").read_text() == "the code = 2"
    assert not Path(first.workspace).exists()
    assert any(first.id in note for note in record["notes"])
    assert any("train.py was changed on both sides" in note for note in record["notes"])
    agent.ask("stop", runs=[second.id], grace=1, force=True)
    agent.wait(second)
    assert not list((agent.root / "locks").rglob("sockets-*"))
