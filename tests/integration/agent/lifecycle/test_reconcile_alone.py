"""Each run is looked after by itself, under its lock, and what is owed behind an end is done."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.host import locks
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal
from gpurun.remote import answers
from tests.support.agent_host import AgentHost
from tests.support.waiting import eventually


def ended(agent: AgentHost, **job: Any) -> RunPaths:
    run = agent.submit("print('done')", **job)
    agent.wait(run)
    return run


@pytest.fixture
def ours(agent: AgentHost, monkeypatch: pytest.MonkeyPatch) -> AgentHost:
    """The host, whose locks this process can take."""
    monkeypatch.setenv("GPURUN_LOCKS", agent.env["GPURUN_LOCKS"])
    monkeypatch.setenv("GPURUN_BOOT_ID_FILE", agent.env["GPURUN_BOOT_ID_FILE"])
    return agent


def test_reconcile_attempt_that_begins_keeps_its_secrets(ours: AgentHost) -> None:
    """A resume has the run's lock, and writes the secrets before exit.json is put aside or while it is."""
    run = ended(ours)
    eventually(lambda: locks.is_free(locks.run_lock(run.id)))
    held = locks.acquire(locks.run_lock(run.id))
    assert held is not None
    Path(run.env).parent.mkdir(parents=True, exist_ok=True)
    Path(run.env).write_text("export KEY=s3cret\n")
    ours.ask("ps")
    assert Path(run.env).exists()
    held.release()
    ours.ask("ps")  # nobody goes on with it
    assert not Path(run.env).exists()


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOSPC])
def test_ps_disk_that_refuses_to_write_is_told_with_the_run(agent: AgentHost, number: int) -> None:
    fine = ended(agent)
    run = agent.prepare("pass")
    journal.record(run, words.QUEUED)
    journal.record(run, words.RUNNING, boot_id="another")  # its end is to be recorded
    door = agent.agent / "__main__.py"
    whole = door.read_text()
    fails = f"import os\ndef no(*_): raise OSError({number}, os.strerror({number}))\nos.fsync = no\n"
    door.write_text(fails + whole)
    records = {record["id"]: record for record in agent.ask("ps", all=True)["runs"]}
    assert os.strerror(number) in records[run.id]["problem"]
    assert (records[fine.id]["state"], records[fine.id]["problem"]) == (words.SUCCEEDED, None)
    assert os.strerror(number) in agent.status(run)["problem"]
    door.write_text(whole)
    assert agent.status(run)["state"] == words.LOST
    assert agent.status(run)["problem"] is None


def no_file(path: str) -> None:
    Path(path).unlink()
    Path(path).mkdir()


DAMAGE: dict[str, Callable[[RunPaths], Any]] = {
    "event": lambda run: Path(run.events).write_text('{"t": 1, "event": "ended"}\n'),
    "event_shape": lambda run: Path(run.events).write_text('{"t": 1, "event": "queued", "v": "x"}\n[]\n7\n'),
    "job": lambda run: Path(run.job).write_text("{"),
    "job_shape": lambda run: Path(run.job).write_text("[]"),
    "events": lambda run: no_file(run.events),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_ps_run_that_cannot_be_read_takes_no_other_along(agent: AgentHost, what: str) -> None:
    broken = agent.prepare("pass")
    DAMAGE[what](broken)
    fine = ended(agent)
    answer = agent.ask("ps", all=True)
    records = {record["id"]: record for record in answer["runs"]}
    assert records[broken.id]["problem"]
    answers.check("ps", {"all": True}, answer)  # a laptop takes it
    assert records[fine.id]["state"] == words.SUCCEEDED
    assert ended(agent).id != fine.id  # a submit looks after all runs too
    agent.ask("rm", runs=[fine.id])


def test_on_end_supervisor_killed_before_it_runs_it_later(agent: AgentHost) -> None:
    hooks = agent.agent / "gpurun" / "agent" / "lifecycle" / "hooks.py"
    whole = hooks.read_text()
    hooks.write_text(whole + "\ndef at_end(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    run = agent.submit("pass", on_end="echo $GPURUN_STATE $KEY >>told", env={"KEY": "s3cret"})
    eventually(lambda: os.path.exists(run.exit) and not agent.lock_holders(f"run-{run.id}"))
    hooks.write_text(whole)
    told = Path(run.workspace, "told")
    agent.ask("ps")
    eventually(lambda: told.exists() and not os.path.exists(run.owed))
    assert told.read_text() == "succeeded s3cret\n"
    agent.ask("ps")
    assert told.read_text() == "succeeded s3cret\n"
    assert not Path(run.env).exists()


def test_on_end_killed_while_it_runs_runs_once_more(agent: AgentHost) -> None:
    run = agent.submit(
        "pass",
        on_end="echo began >>told; test -f go || sleep 60",
        env={"KEY": "x"},
    )
    told = Path(run.workspace, "told")
    eventually(told.exists)
    agent.ask("ps")  # it runs: no second one is started
    assert told.read_text() == "began\n"
    agent.end_all()
    Path(run.workspace, "go").touch()
    eventually(lambda: not agent.processes())
    agent.ask("ps")
    eventually(lambda: not os.path.exists(run.owed))
    assert told.read_text() == "began\nbegan\n"


def test_start_snapshot_that_a_power_cut_emptied_does_not_run(agent: AgentHost) -> None:
    """A disk that did not keep what it was told to."""
    run = agent.prepare("print('trained')\n" * 100)
    (agent.root / "bin" / "cp").unlink()
    (agent.root / "bin" / "cp").write_text("#!/bin/sh\nsleep 60\n")
    (agent.root / "bin" / "cp").chmod(0o755)
    agent.start(run)
    eventually(lambda: agent.status(run)["state"] == words.PREPARING)
    agent.end_all()
    os.truncate(os.path.join(run.snapshot, "train.py"), 0)
    agent.boot_id.write_text("another boot")
    shutil.rmtree(run.workspace, ignore_errors=True)
    (agent.root / "bin" / "cp").unlink()
    (agent.root / "bin" / "cp").symlink_to(shutil.which("cp") or "")
    record = agent.wait(run)
    assert (record["state"], record["reason"]) == (words.FAILED, "sync")
    assert "restarted" in record["message"]
    assert not Path(run.log).exists()
