"""What `wait`, `resume` and `host add` say of a host that cannot be reached, or must not be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.cli import app
from gpurun.config import hosts
from gpurun.store import run_store
from tests.support.part import part

Capture = pytest.CaptureFixture[str]
CLOSED: Any = {"address": {"host": "127.0.0.1", "port": 1}}  # nothing listens there


@pytest.fixture(autouse=True)
def _closed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    hosts.add("box", CLOSED)


def known(state: str) -> None:
    job = {"id": "train-7f3k", "name": "train", "created": 1.0, "project": {"name": "p", "root": "/p"}, "env": []}
    run_store.add(part(job), "box")
    record = {"id": "train-7f3k", "name": "train", "project": "p", "created": 1.0, "state": state, "host_id": "h1"}
    run_store.update([part(record)], "box")


def test_wait_says_at_once_what_it_waits_for(capsys: Capture) -> None:
    known("running")
    assert app.main(["wait", "train-7f3k"]) == 255
    said = capsys.readouterr().err
    assert said.startswith("waiting for train-7f3k on box (running ")
    assert "error: " in said


@pytest.mark.parametrize("state", ["stopped", "running"])
@pytest.mark.parametrize(("others", "named"), [(["spare"], "spare"), ([], "HOST")])
def test_resume_of_a_run_whose_host_is_away_names_the_way_to_another(
    state: str, others: list[str], named: str, capsys: Capture
) -> None:
    for name in others:
        hosts.add(name, {})
    known(state)
    assert app.main(["resume", "train-7f3k"]) == 255
    assert f"gpurun resume train-7f3k --host {named}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["root@127.0.0.1:1", "-i", "nope"], ["ssh -i nope -p 1 root@127.0.0.1"], ["-i", "nope"]]
)
def test_key_that_is_not_there_is_refused_before_the_host_is_asked(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    asked = tmp_path / "asked"
    (tmp_path / "ssh").write_text(f"#!/bin/sh\ntouch {asked}\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("GPURUN_SSH", str(tmp_path / "ssh"))
    assert app.main(["host", "add", "new", *words]) == 2
    assert f"there is no key {Path('nope')}" in capsys.readouterr().err
    assert not asked.exists()
    assert "new" not in hosts.read().hosts


def test_logs_of_a_run_whose_host_is_away_names_the_fetched_log(tmp_path: Path, capsys: Capture) -> None:
    known("stopped")
    assert app.main(["logs", "train-7f3k"]) == 255
    assert "what was fetched" not in capsys.readouterr().err
    record = tmp_path / "fetched/train-7f3k/_gpurun"
    record.mkdir(parents=True)
    (record / "job.json").write_text('{"id": "train-7f3k"}')
    (record / "log").write_text("step 1\n")
    assert app.main(["logs", "train-7f3k"]) == 255
    assert f"or read what was fetched: {record / 'log'}" in capsys.readouterr().err


def test_prune_that_no_host_answers_fails(capsys: Capture) -> None:
    known("stopped")
    assert app.main(["prune", "--fetched"]) == 255
    said = capsys.readouterr()
    assert "box did not answer, so its runs stay" in said.err
    assert "removed" not in said.err + said.out


@pytest.mark.parametrize("verb", [["ps"], ["ps", "-a"]])
def test_ps_of_a_laptop_without_hosts_is_an_empty_list_that_names_the_runs_it_still_knows(
    verb: list[str], capsys: Capture
) -> None:
    """As after `host leave` of the only one."""
    known("stopped")
    run_store.note_removed("train-7f3k")
    hosts.remove("box")
    assert app.main(verb) == 0
    said = capsys.readouterr().err
    assert "no host is known here" in said
    assert "gpurun host add NAME" in said
    assert "gpurun ps --removed" in said
    assert app.main([*verb, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": [], "hosts": []}
