"""Services found where they run and submitted where they do not, by questions to the real agent."""

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
from tests.unit.tunnel.conftest import Box

BOARD = Service(words.TENSORBOARD, "digits")
RECORD: dict[str, Any] = {
    "service": {"kind": words.TENSORBOARD, "run": None},
    "project": "digits",
    "owner": "ada",
    "stop_requested": False,
}


def test_a_service_knows_its_own_run() -> None:
    assert BOARD.is_in(RECORD, "ada")


@pytest.mark.parametrize(
    "change",
    [
        {"service": None},
        {"service": {"kind": words.JUPYTER, "run": None}},
        {"service": {"kind": words.TENSORBOARD, "run": "train-7f3k"}},
        {"project": "vision"},
        {"owner": "bob"},
        {"stop_requested": True},  # it is about to go
    ],
)
def test_and_no_other(change: dict[str, Any]) -> None:
    assert not BOARD.is_in({**RECORD, **change}, "ada")


def test_the_newest_live_one_is_found_and_remembered(box: Box) -> None:
    assert services.find(box.wire, BOARD) is None
    box.service(created=1.0)
    newest = box.service(created=2.0)
    box.service(created=3.0).end()
    box.service(created=3.0, about="train-7f3k")
    box.service(words.JUPYTER, created=3.0)
    box.service(created=3.0, project={"name": "vision"})
    box.service(created=3.0, owner="bob")
    found = services.find(box.wire, BOARD)
    assert found is not None
    assert found["id"] == newest.paths.id
    entry = run_store.find(newest.paths.id)
    assert entry is not None
    assert (entry.host, entry.service) == ("demo", words.TENSORBOARD)


def test_one_about_a_run_is_another(box: Box) -> None:
    about = box.service(about="train-7f3k")
    found = services.find(box.wire, replace(BOARD, run="train-7f3k"))
    assert found is not None
    assert found["id"] == about.paths.id
    assert services.find(box.wire, BOARD) is None


def test_one_of_another_machine_that_shares_the_home_is_not_taken(box: Box) -> None:
    box.service(host={"machine_id": "another", "id": "h2"})
    assert services.find(box.wire, BOARD) is None


class Heard:
    def __init__(self) -> None:
        self.states: list[str] = []

    def log(self, data: bytes) -> None:
        return

    def prepare(self, data: bytes) -> None:
        return

    def state(self, record: dict[str, Any]) -> None:
        self.states.append(record["state"])

    def lost(self, what: str) -> None:
        raise AssertionError(what)

    def back(self) -> None:
        return

    def asks(self) -> None:
        return


def test_one_that_runs_is_not_waited_for(box: Box) -> None:
    box.service()
    record = services.find(box.wire, BOARD)
    assert record is not None
    assert services.wait_until_running(box.wire, record, Heard()) is record


def test_one_that_is_prepared_is_waited_for(box: Box) -> None:
    run = box.service()
    journal.record(run.paths, words.PREPARING)
    record = services.find(box.wire, BOARD)
    assert record is not None
    assert record["state"] == words.PREPARING
    heard = Heard()
    journal.record(run.paths, words.RUNNING, boot_id="boot")
    assert services.wait_until_running(box.wire, record, heard)["state"] == words.RUNNING


def test_one_that_ends_before_is_an_error_with_its_reason(box: Box) -> None:
    run = box.service()
    journal.record(run.paths, words.PREPARING)
    record = services.find(box.wire, BOARD)
    assert record is not None
    journal.record_end(run.paths, words.FAILED, "dependencies", message="no network")
    with pytest.raises(GpurunError, match="ended before it was up: no network") as raised:
        services.wait_until_running(box.wire, record, Heard())
    assert raised.value.next_step == f"gpurun logs {run.paths.id}"
    assert raised.value.where == "demo"


@pytest.fixture
def loaded(home: Path) -> Loaded:
    """A project with settings of all kinds, which are those of its jobs."""
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


def test_a_board_takes_nothing_of_the_project_but_its_name(loaded: Loaded) -> None:
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


def test_a_session_gets_code_image_dependencies_and_gpus_but_no_time_limit(loaded: Loaded) -> None:
    plan = services._session_plan(Service(words.JUPYTER, "digits"), loaded)
    job = plan.job
    assert plan.files.has("train.py")
    assert (job["resources"]["gpus"], job["image"], job["env"]) == (2, "other:1", ["LEVEL"])
    assert job["resources"]["memory"] == 8_000_000_000
    assert job["dependencies"] is not None
    assert (job["user"], job["max_duration"], job["command"]) == (None, None, [])
    assert job["service"]["title"] == "digits on box"
