"""Hooks of real runs: what they are told, and that nothing they do changes a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from tests.support.agent_host import AgentHost
from tests.support.trainer import TRAINER
from tests.support.waiting import eventually

TELL = 'echo "$GPURUN_RUN_ID $GPURUN_STATE $GPURUN_REASON $GPURUN_EXIT_CODE $GPURUN_STEP $GPURUN_METRIC" >>told'


def train(agent: AgentHost, *told: str, **changes: Any) -> RunPaths:
    return agent.submit(TRAINER, command=["python", "train.py", *told], **changes)


def told(run: RunPaths) -> list[str]:
    path = Path(run.workspace, "told")
    return path.read_text().splitlines() if path.exists() else []


def test_end_is_told_with_how_it_ended(agent: AgentHost) -> None:
    run = train(agent, "crash=25", on_end=TELL)
    agent.wait(run)
    eventually(lambda: told(run))
    assert told(run) == [f"{run.id} failed exit 1 20 0.05"]


def test_end_of_the_run_is_told_and_not_that_of_an_attempt(agent: AgentHost) -> None:
    run = train(agent, "crash=25", on_end=TELL, retries=1)
    agent.wait(run)
    eventually(lambda: told(run))
    time.sleep(0.5)
    assert told(run) == [f"{run.id} succeeded exit 0 40 0.025"]


def test_each_checkpoint_is_told_the_last_one_too(agent: AgentHost) -> None:
    command = 'test -f "$GPURUN_CHECKPOINT" && echo "$GPURUN_STEP $GPURUN_MONITOR" >>told'
    run = train(agent, "pace=0.1", on_checkpoint=command)
    agent.wait(run)
    eventually(lambda: len(told(run)) == 4)
    assert told(run) == ["10 loss", "20 loss", "30 loss", "40 loss"]


def test_hook_has_the_users_variables(agent: AgentHost) -> None:
    run = agent.submit("pass", env={"TOKEN": 'it\'s "a" $secret'}, on_end='printf %s "$TOKEN" >>told')
    agent.wait(run)
    eventually(lambda: told(run))
    assert told(run) == ['it\'s "a" $secret']
    eventually(lambda: not Path(run.env).exists())
    left = [path for path in agent.home.rglob("*") if path.is_file() and b"$secret" in path.read_bytes()]
    assert left == [Path(run.workspace, "told")]


def test_hook_that_fails_is_a_note(agent: AgentHost) -> None:
    run = agent.submit("pass", on_end="echo no such webhook >&2; exit 7")
    assert agent.wait(run)["state"] == words.SUCCEEDED
    eventually(lambda: agent.status(run)["notes"])
    assert agent.status(run)["notes"] == ["on_end failed with exit code 7: no such webhook"]
    assert "no such webhook" in Path(run.hooks_log).read_text()


def test_hook_that_hangs_holds_up_nothing(agent: AgentHost) -> None:
    agent.more_env["GPURUN_HOOK_SECONDS"] = "2"
    run = agent.submit("pass", on_end="sleep 3600 & sleep 3600")
    assert agent.wait(run)["state"] == words.SUCCEEDED
    assert agent.resume(run)["attempt"] == 2
    assert agent.wait(run)["state"] == words.SUCCEEDED
    eventually(lambda: agent.status(run)["notes"])
    assert agent.status(run)["notes"][0] == "on_end was killed: it took longer than 2 s"


def test_hook_outlives_the_job(agent: AgentHost) -> None:
    """Without an engine every process that bears the run's id is ended with the job; a hook is none of the job's."""
    run = train(agent, "steps=11", "pace=0.05", on_checkpoint="sleep 1.5; echo through >>told")
    agent.wait(run)
    eventually(lambda: told(run))
    assert told(run) == ["through"]
    assert agent.status(run)["notes"] == []


def test_stop_before_the_start_is_an_end_too(agent: AgentHost) -> None:
    run = agent.prepare("pass", on_end="echo $GPURUN_STATE >../told")
    Path(run.workspace).mkdir()
    agent.ask("stop", runs=[run.id], grace=None, force=False)
    eventually(lambda: Path(run.root, "told").exists())
    assert Path(run.root, "told").read_text() == "stopped\n"
