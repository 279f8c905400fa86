"""Runs of other versions of gpurun: those of 0.1.0 are gone on with, those of a newer one are left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal
from gpurun.remote import answers
from tests.support import old_files
from tests.support.agent_host import AgentHost


@pytest.fixture
def old(agent: AgentHost) -> AgentHost:
    """A host as gpurun 0.1.0 left it; its machine was not restarted since, and its processes were killed."""
    old_files.lay_out("host", Path(agent.paths.root), host=agent.home, project=agent.home / "vision")
    agent.machine_id.write_text(old_files.MACHINE_ID)
    agent.boot_id.write_text(old_files.BOOT_ID)
    return agent


def test_ps_runs_of_0_1_0_are_told_as_they_are(old: AgentHost) -> None:
    records = {record["id"]: record for record in old.ask("ps", all=True)["runs"]}
    assert set(records) == set(old_files.RUNS)
    states = {run: record["state"] for run, record in records.items()}
    assert states == {**old_files.RUNS, old_files.RUNNING: words.LOST}  # its processes are gone
    assert [record["problem"] for record in records.values()] == [None] * 4
    assert records[old_files.FAILED]["attempt"] == 4
    assert [told["state"] for told in records[old_files.FAILED]["attempts"]] == ["failed"] * 3
    assert records[old_files.SUCCEEDED]["fetched"]
    assert not Path(old.paths.run(old_files.RUNNING).old_env).exists()


@pytest.mark.parametrize("run", old_files.RUNS)
def test_verbs_that_ask_answer_about_runs_of_0_1_0(old: AgentHost, run: str) -> None:
    assert old.ask("status", run=run)["events"][0]["event"] == words.CREATED
    assert old.ask("status", run=run)["log_tail"] == "begins\n"
    assert old.ask("wait", runs=[run], seconds=60)["runs"][0]["live"] is False
    assert "workspace/model.ckpt" in {entry["path"] for entry in old.ask("outputs", run=run)["files"]}
    assert old.ask("unfetched", runs=[run])["held"].keys() == {run}
    assert old.ask("checkpoint", run=run, which="last")["checkpoint"] is None
    assert old.ask("logs", run=run, stream=False)["run"]["id"] == run
    assert old.ask("stop", runs=[run], grace=None, force=False)["runs"][0]["live"] is False
    assert old.ask("fetched", run=run, what="all", attempt=old.status(old.paths.run(run))["attempt"])["counts"]


@pytest.mark.parametrize("run", [old_files.SUCCEEDED, old_files.FAILED, old_files.STOPPED])
def test_migrate_and_resume_go_on_with_runs_of_0_1_0(old: AgentHost, run: str) -> None:
    carried = old.ask("migrate", run=run, ask="a5k", target="other")
    old.ask("migrate", run=run, back="a5k")
    assert sorted(entry[0] for entry in carried["snapshot"]) == ["gpurun.toml", "train.py"]
    paths = old.paths.run(run)
    attempt = old.resume(paths)["attempt"]
    assert attempt == (5 if run == old_files.FAILED else 2)
    if run == old_files.STOPPED:  # it sleeps
        old.until_running(paths)
        old.ask("stop", runs=[run], grace=1.0, force=True)
    record = old.wait(paths)
    assert record["state"] == old_files.RUNS[run]
    old.ask("rm", runs=[run])
    assert not Path(paths.root).exists()


def newer_job(agent: AgentHost) -> RunPaths:
    run = agent.prepare("print('started by an agent that knows one schema alone')", schema=words.JOB_SCHEMA + 1)
    journal.record(run, words.QUEUED)
    return run


def newer_event(agent: AgentHost) -> RunPaths:
    run = agent.prepare("print('started')")
    journal.record(run, words.QUEUED)
    facts: Any = {"v": words.JOURNAL_SCHEMA + 1}
    journal.record(run, "parked", **facts)
    return run


def newer_end(agent: AgentHost) -> RunPaths:
    run = agent.prepare("print('started')")
    journal.record(run, words.QUEUED)
    journal.record(run, words.RUNNING, boot_id="x")
    journal.record(run, "ended", state="preempted", reason="preempted", exit_code=0)
    return run


def content(run: RunPaths) -> dict[str, bytes]:
    files = (Path(folder, name) for folder, _, names in os.walk(run.root) for name in names)
    return {str(file.relative_to(run.root)): file.read_bytes() for file in files}


@pytest.mark.parametrize("make", [newer_job, newer_event, newer_end])
def test_verbs_newer_run_is_shown_and_not_touched(agent: AgentHost, make: Callable[[AgentHost], RunPaths]) -> None:
    run = make(agent)
    before = content(run)
    (record,) = answers.check("ps", {"all": True}, agent.ask("ps", all=True))["runs"]
    assert record["newer"]
    assert "newer gpurun" in record["problem"]
    assert words.UPDATE in record["problem"]
    live = make is not newer_end
    assert (record["state"], record["live"]) == ((words.QUEUED, True) if live else ("preempted", False))
    agent.ask("status", run=run.id)
    agent.ask("outputs", run=run.id)
    agent.ask("wait", runs=[run.id], seconds=0.2)
    token = json.loads(Path(run.job).read_text())["token"]
    refusals: list[Any] = [
        agent.refused("start", run=run.id, token=token, manifest={}, env={}, follow=False),
        agent.refused("resume", run=run.id, ask="1", gpus=None, env={}, **{"from": None}),
        agent.refused("migrate", run=run.id, ask="a5k", target="other"),
        agent.refused("rm", runs=[run.id]),
        agent.refused("fetched", run=run.id, what="all", attempt=1),
        agent.refused("leave", wipe=True, runs=[run.id]),
        *([agent.refused("stop", runs=[run.id], grace=None, force=True)] if live else []),
    ]
    assert {error["code"] for error in refusals} == {"newer"}
    assert {error["next"] for error in refusals} == {words.UPDATE}
    assert content(run) == before
    assert agent.lock_holders(f"run-{run.id}") == []
