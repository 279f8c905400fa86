"""The move of a run between two hosts: whatever breaks off, one of them begins the next attempt, and never both."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from tests.support.agent_host import AgentHost

SCRIPT = "import os; print('attempt', os.environ['GPURUN_ATTEMPT'])"


@pytest.fixture
def spare(tmp_path: Path, python: str) -> Iterator[AgentHost]:
    folder = tmp_path / "spare"
    folder.mkdir()
    host = AgentHost(folder, python)
    yield host
    host.end_all()


@pytest.fixture
def ended(agent: AgentHost) -> RunPaths:
    run = agent.submit(SCRIPT)
    agent.wait(run)
    return run


class Move:
    """What a laptop asks of both hosts for one move."""

    def __init__(self, agent: AgentHost, spare: AgentHost, run: RunPaths) -> None:
        self.agent, self.spare, self.run = agent, spare, run
        self.ask = secrets.token_hex(8)
        self.there = spare.paths.run(run.id)

    def leave(self) -> Any:
        self.told = self.agent.ask("migrate", run=self.run.id, ask=self.ask, target="spare", **{"from": None})
        return self.told

    def send(self) -> None:
        self.spare.ask("prepare", job=self.told["job"], total_bytes=0)
        shutil.copytree(self.run.snapshot, self.there.snapshot, dirs_exist_ok=True)

    def question(self) -> dict[str, Any]:
        carried: dict[str, Any] = {"checkpoint": None, "attempt": 1, "earlier": [], "progress": None}
        return {"run": self.run.id, "ask": self.ask, "env": {}, "manifest": None, "carried": carried, "from": None}

    def begin(self) -> Any:
        return self.spare.ask("resume", **self.question())["run"]

    def settle(self) -> Any:
        return self.spare.ask("migrate", run=self.run.id, settle=self.ask)

    def back(self) -> None:
        self.agent.ask("migrate", run=self.run.id, back=self.ask)


@pytest.fixture
def move(agent: AgentHost, spare: AgentHost, ended: RunPaths) -> Move:
    return Move(agent, spare, ended)


def resumed(agent: AgentHost, run: RunPaths) -> Any:
    return agent.exchange("resume", run=run.id, ask=secrets.token_hex(4), env={}, **{"from": None})[0]


def test_run_under_way_is_not_resumed_where_it_was(agent: AgentHost, move: Move) -> None:
    move.leave()
    refused = resumed(agent, move.run)
    assert refused["error"]["code"] == "moving"
    assert "spare" in refused["error"]["what"]
    assert agent.status(move.run)["moving"] == {"ask": move.ask, "to": "spare"}


def test_run_under_way_is_not_left_to_a_third_host(agent: AgentHost, move: Move) -> None:
    move.leave()
    move.leave()  # the same question sent twice is one move
    refused = agent.refused("migrate", run=move.run.id, ask="beef", target="third", **{"from": None})
    assert refused["code"] == "moving"


def test_run_that_went_on_there_is_refused_here(agent: AgentHost, move: Move) -> None:
    move.leave()
    move.send()
    assert move.begin()["attempt"] == 2
    agent.ask("migrate", run=move.run.id, to="spare", attempt=2)
    assert resumed(agent, move.run)["error"]["code"] == "moved"
    assert agent.status(move.run)["moving"] is None


def test_settling_before_anything_was_sent_keeps_it_from_beginning_later(agent: AgentHost, move: Move) -> None:
    move.leave()
    assert move.settle() == {"begun": False, "run": None}
    move.back()
    assert resumed(agent, move.run)["ok"]
    move.send()
    refused = move.spare.refused("resume", **move.question())
    assert refused["code"] == "revoked"
    assert move.spare.status(move.there)["state"] == words.SYNCING


def test_settling_before_it_began_keeps_it_from_beginning_later(move: Move) -> None:
    move.leave()
    move.send()
    assert move.settle()["begun"] is False
    assert move.spare.refused("resume", **move.question())["code"] == "revoked"


def test_settling_behind_the_beginning_tells_that_it_began(agent: AgentHost, move: Move) -> None:
    move.leave()
    move.send()
    move.begin()
    told = move.settle()
    assert (told["begun"], told["run"]["attempt"]) == (True, 2)
    assert resumed(agent, move.run)["error"]["code"] == "moving"
    assert move.spare.wait(move.there)["attempt"] == 2
    assert move.settle()["begun"] is True, "its end changes nothing about that"


def test_question_that_comes_again_behind_a_later_attempt_begins_nothing(move: Move) -> None:
    move.leave()
    move.send()
    move.begin()
    move.spare.wait(move.there)
    move.spare.resume(move.there)
    move.spare.wait(move.there)
    assert move.begin()["attempt"] == 3


def test_move_begun_anew_behind_a_settled_one_goes_through(agent: AgentHost, move: Move) -> None:
    move.leave()
    move.send()
    move.settle()
    move.back()
    again = Move(agent, move.spare, move.run)
    again.leave()
    again.send()
    assert again.begin()["attempt"] == 2


def test_only_the_ask_that_left_a_run_takes_it_back(agent: AgentHost, move: Move) -> None:
    move.leave()
    agent.ask("migrate", run=move.run.id, back="beef")
    assert resumed(agent, move.run)["error"]["code"] == "moving"


def test_note_that_it_went_on_there_changes_nothing_where_it_went_on_too(agent: AgentHost, move: Move) -> None:
    """Its user said yes to two attempts while one host was away."""
    agent.resume(move.run)
    agent.ask("migrate", run=move.run.id, to="spare", attempt=2)
    agent.wait(move.run)
    assert resumed(agent, move.run)["ok"]
