"""Find running services and submit the missing ones, with the real agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.state import journal
from gpurun.config import hosts
from gpurun.config.load import Loaded, load
from gpurun.errors import GpurunError
from gpurun.store import run_store
from gpurun.tunnel import services
from gpurun.tunnel.services import Service
from tests.integration.tunnel.conftest import Box
from tests.support.part import part

BOARD = Service(words.TENSORBOARD, "digits")
RECORD: Any = {
    "service": {"kind": words.TENSORBOARD, "run": None},
    "project": "digits",
    "owner": "ada",
    "stop_requested": False,
}


def test_service_matches_its_run() -> None:
    assert BOARD.matches(RECORD, "ada")


@pytest.mark.parametrize(
    "change",
    [
        {"service": None},
        {"service": {"kind": words.JUPYTER, "run": None}},
        {"service": {"kind": words.TENSORBOARD, "run": "train-7f3k"}},
        {"project": "vision"},
        {"owner": "bob"},
        {"stop_requested": True},  # it ends soon
    ],
)
def test_service_does_not_match_another_run(change: Any) -> None:
    assert not BOARD.matches(part({**RECORD, **change}), "ada")


def test_find_returns_and_stores_the_newest_live_run(box: Box) -> None:
    assert services.find(box.wire, BOARD) is None
    box.service(created=1.0)
    newest = box.service(created=2.0)
    box.service(created=3.0).end()
    box.service(created=3.0, about="train-7f3k")
    box.service(words.JUPYTER, created=3.0)
    box.service(created=3.0, project={"name": "vision"})
    box.service(created=3.0, owner="bob")
    record = services.find(box.wire, BOARD)
    assert record is not None
    assert record["id"] == newest.paths.id
    entry = run_store.find(newest.paths.id)
    assert entry is not None
    assert (entry.host, entry.service) == ("demo", words.TENSORBOARD)


def test_find_separates_the_tensorboard_of_one_run(box: Box) -> None:
    about = box.service(about="train-7f3k")
    record = services.find(box.wire, replace(BOARD, run="train-7f3k"))
    assert record is not None
    assert record["id"] == about.paths.id
    assert services.find(box.wire, BOARD) is None


def test_find_ignores_another_machine_that_shares_the_home(box: Box) -> None:
    box.service(host={"machine_id": "another", "id": "h2"})
    assert services.find(box.wire, BOARD) is None


class StateListener:
    def __init__(self) -> None:
        self.states: list[str] = []

    def log(self, data: bytes) -> None:
        return

    def prepare(self, data: bytes) -> None:
        return

    def state(self, record: Any) -> None:
        self.states.append(record["state"])

    def lost(self, what: str) -> None:
        raise AssertionError(what)

    def back(self) -> None:
        return

    def asks(self) -> None:
        return


def test_running_service_is_not_waited_for(box: Box) -> None:
    box.service()
    record = services.find(box.wire, BOARD)
    assert record is not None
    assert services.wait_until_running(box.wire, record, StateListener()) is record


def test_service_in_preparation_is_waited_for(box: Box) -> None:
    run = box.service()
    journal.record(run.paths, words.PREPARING)
    record = services.find(box.wire, BOARD)
    assert record is not None
    assert record["state"] == words.PREPARING
    listener = StateListener()
    journal.record(run.paths, words.RUNNING, boot_id="boot")
    assert services.wait_until_running(box.wire, record, listener)["state"] == words.RUNNING


def test_service_that_ends_in_preparation_is_an_error_with_its_reason(box: Box) -> None:
    run = box.service()
    journal.record(run.paths, words.PREPARING)
    record = services.find(box.wire, BOARD)
    assert record is not None
    journal.record_end(run.paths, words.FAILED, "dependencies", message="no network")
    with pytest.raises(GpurunError, match="ended before it was ready: no network") as raised:
        services.wait_until_running(box.wire, record, StateListener())
    assert raised.value.next_step == f"gpurun logs {run.paths.id}"
    assert raised.value.where == "demo"


@pytest.fixture
def loaded(home: Path) -> Loaded:
    """Load a project with settings of all kinds, which apply to its jobs."""
    hosts.add("box", {})
    root = home / "digits"
    root.mkdir()
    (root / "train.py").touch()
    (root / "requirements.txt").write_text("timm\n")
    (root / "gpurun.toml").write_text(
        'gpus = 2\nimage = "other:1"\nidle = "1h"\nmax_duration = "3h"\nuser = "root"\nmemory = "8GB"\n'
        'runtime = "docker"\nenv = ["LEVEL=debug"]\nports = [8080]\n'
    )
    return load({}, None, root, need_script=False)


def test_tensorboard_job_uses_only_the_name_of_the_project(loaded: Loaded) -> None:
    plan = services._board_plan(replace(BOARD, run="train-7f3k"), loaded)
    job = plan.job
    assert (plan.files.count, plan.needs_agent) == (0, False)
    assert (job["project"]["name"], job["id"].startswith("tensorboard-")) == ("digits", True)
    assert job["service"] == {
        "kind": words.TENSORBOARD,
        "run": "train-7f3k",
        "title": "train-7f3k on box",
        "idle": 3600.0,
    }
    assert (job["resources"]["gpus"], job["image"], job["runtime"]) == (0, None, "docker")
    assert (job["env"], job["ports"], job["user"], job["max_duration"], job["dependencies"]) == (
        [],
        [],
        None,
        None,
        None,
    )
    assert job["command"] == []


def test_jupyter_job_gets_code_image_dependencies_and_gpus_without_time_limit(loaded: Loaded) -> None:
    plan = services._session_plan(Service(words.JUPYTER, "digits"), loaded)
    job = plan.job
    assert plan.files.has("train.py")
    assert (job["resources"]["gpus"], job["image"], job["env"]) == (2, "other:1", ["LEVEL"])
    assert job["resources"]["memory"] == 8_000_000_000
    assert job["dependencies"] is not None
    assert (job["user"], job["max_duration"], job["command"]) == (None, None, [])
    assert job["service"] is not None
    assert job["service"]["title"] == "digits on box"
