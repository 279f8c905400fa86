"""What a tunnel leads to, from what was typed, what the project says and which runs this laptop knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.state import journal
from gpurun.commands.submit import Report
from gpurun.config import hosts
from gpurun.errors import UsageError
from gpurun.store import run_store
from gpurun.tunnel import plan, ports
from gpurun.tunnel.link import Target
from gpurun.tunnel.plan import Asked, Planned, Ports
from gpurun.tunnel.services import Service
from tests.unit.tunnel.conftest import Box
from tests.unit.tunnel.test_services import Heard

BOARD, LAB = Service(words.TENSORBOARD, "digits"), Service(words.JUPYTER, "digits")
NONE = Ports(None, ())


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, as the folder that we are in, and two hosts."""
    hosts.add("box", {})
    hosts.add("other", {})
    hosts.use("box")
    root = home / "digits"
    root.mkdir()
    (root / "gpurun.toml").write_text("ports = [8080]\n")
    monkeypatch.chdir(root)
    return root


def remember(root: Path, run: str, *, host: str = "box", state: str = words.RUNNING, **job: Any) -> None:
    told = {"id": run, "name": run[:-5], "created": 1.0, "project": {"name": root.name, "root": str(root)}, **job}
    run_store.add(told, host)
    run_store.update([{**told, "project": root.name, "state": state}], host)


def wanted(**asked: Any) -> tuple[tuple[Service, ...], Ports]:
    planned = plan.make(Asked(**asked))
    return planned.services, planned.ports


@pytest.mark.parametrize(
    ("asked", "services", "led"),
    [
        ({}, (BOARD,), NONE),
        ({"tensorboard": True}, (BOARD,), NONE),
        ({"jupyter": True}, (LAB,), NONE),
        ({"tensorboard": True, "jupyter": True}, (BOARD, LAB), NONE),
        # Without a run a port is the host's.
        ({"ports": ("8888",)}, (), Ports(None, ((None, 8888),))),
        ({"ports": ("9000:8080", "6006")}, (), Ports(None, ((9000, 8080), (None, 6006)))),
        ({"ports": ("8888",), "jupyter": True}, (LAB,), Ports(None, ((None, 8888),))),
    ],
)
def test_without_a_run(project: Path, asked: dict[str, Any], services: tuple[Service, ...], led: Ports) -> None:
    assert wanted(**asked) == (services, led)


def test_a_folder_that_is_no_project_has_no_runs_to_show(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "downloads"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="no project is here"):
        wanted()
    assert wanted(ports=("8888",))[1].numbers == ((None, 8888),)
    remember(folder, "train-7f3k")
    assert wanted()[0] == (Service(words.TENSORBOARD, "downloads"),)


def test_a_run_means_a_board_over_it_and_its_own_ports(project: Path) -> None:
    remember(project, "train-1111", ports=[{"local": 9000, "remote": 8000}])
    board = Service(words.TENSORBOARD, "digits", "train-1111")
    named = Ports("train-1111", ((9000, 8000),), wanted=False)
    assert wanted(run="train-1111") == ((board,), named)
    assert wanted(run="train") == ((board,), named)
    assert wanted(run="train", tensorboard=True) == ((board,), NONE)
    assert wanted(run="train", ports=("7000",)) == ((), Ports("train-1111", ((None, 7000),)))


def test_the_ports_of_the_projects_newest_live_run_on_that_host_come_too(project: Path) -> None:
    told: dict[str, Any] = {"ports": [{"local": None, "remote": 8080}]}
    remember(project, "train-1111", created=1.0, **told)
    remember(project, "train-2222", created=2.0, **told)
    remember(project, "train-3333", created=3.0, state=words.SUCCEEDED, **told)
    remember(project, "train-4444", created=4.0, host="other", **told)
    remember(project.parent, "train-5555", created=5.0, **told)
    remember(project, "train-6666", created=6.0, ports=[])
    assert wanted() == ((BOARD,), Ports("train-2222", ((None, 8080),), wanted=False))


@pytest.mark.parametrize("about", [None, "train-1111"])
def test_the_run_of_a_service_means_that_service(project: Path, about: str | None) -> None:
    remember(project, "tensorboard-2222", service={"kind": words.TENSORBOARD, "run": about})
    assert wanted(run="tensorboard-2222")[0] == (Service(words.TENSORBOARD, "digits", about),)


def test_a_run_of_another_project_is_about_that_project(project: Path) -> None:
    remember(project.parent / "vision", "train-1111")
    assert wanted(run="train-1111")[0] == (Service(words.TENSORBOARD, "vision", "train-1111"),)


def test_the_host_is_that_of_the_run(project: Path) -> None:
    remember(project, "train-1111", host="other")
    assert plan.make(Asked(run="train-1111")).wire.host == "other"
    assert plan.make(Asked(run="train-1111", host="other")).wire.host == "other"
    assert plan.make(Asked(host="other")).wire.host == "other"
    assert plan.make(Asked()).wire.host == "box"
    with pytest.raises(UsageError, match="train-1111 is on other, not on box"):
        plan.make(Asked(run="train-1111", host="box"))


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "1:2:3", ":80", "80:", "-1", "8080/tcp", "127.0.0.1:80"])
def test_what_is_no_port_is_refused_with_an_example(project: Path, text: str) -> None:
    with pytest.raises(UsageError, match="-p: ") as raised:
        plan.make(Asked(ports=(text,)))
    assert raised.value.exit_code == 2
    assert "-p 9000:8080" in raised.value.next_step


def test_gpus_are_for_the_session(project: Path) -> None:
    assert plan.make(Asked(jupyter=True, gpus="3")).loaded.spec.gpus == 3


class Told:
    """What `bring_up` says while it works."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def bring_up(self, box: Box, *services: Service, led: Ports = NONE) -> tuple[plan.Way, ...]:
        from gpurun.config.load import load

        hosts.add("demo", {})
        planned = Planned(box.wire, load({"host": "demo"}, None, need_script=False), services, led)
        report = Report(self.said.append, lambda _: None, lambda _: None, lambda *_: None)
        return plan.bring_up(planned, report, Heard(), self.said.append).ways


def test_a_service_that_runs_is_led_to_by_a_port_of_its_own(box: Box, project: Path) -> None:
    run, told = box.service(), Told()
    (way,) = told.bring_up(box, BOARD)
    assert (way.target, way.what) == (Target("TensorBoard", run.paths.id), "TensorBoard of digits")
    assert way.port == ports.stable("demo", "digits", words.TENSORBOARD, "")
    assert told.said == ["asking demo"]


def test_ports_of_a_live_run_and_of_the_host(box: Box, project: Path) -> None:
    run = box.run()
    first, second = Told().bring_up(box, led=Ports(run.paths.id, ((9000, 8080), (None, 6006))))
    assert (first.target, first.port) == (Target("port 8080", run.paths.id, 8080), 9000)
    assert (second.target, second.port) == (Target("port 6006", run.paths.id, 6006), 6006)
    assert second.what == f"port 6006 of {run.paths.id}"
    (way,) = Told().bring_up(box, led=Ports(None, ((None, 5432),)))
    assert (way.target, way.what) == (Target("port 5432", None, 5432), "port 5432 of demo")


def test_two_doors_to_one_port_are_told_apart_and_what_is_said_twice_is_one(box: Box, project: Path) -> None:
    ways = Told().bring_up(box, led=Ports(None, ((None, 8080), (9000, 8080), (8080, 8080), (None, 6006))))
    assert [(way.target.name, way.port) for way in ways] == [
        ("port 8080 at 8080", 8080),
        ("port 8080 at 9000", 9000),
        ("port 6006", 6006),
    ]


def test_a_run_that_has_ended_has_no_ports(box: Box, project: Path) -> None:
    run = box.run()
    run.end()
    with pytest.raises(UsageError, match="has ended") as raised:
        Told().bring_up(box, led=Ports(run.paths.id, ((None, 8080),)))
    assert raised.value.next_step == f"gpurun logs {run.paths.id}"
    assert Told().bring_up(box, led=Ports(run.paths.id, ((None, 8080),), wanted=False)) == ()


def test_a_run_that_is_still_prepared_is_waited_for(box: Box, project: Path) -> None:
    run = box.run()
    journal.record(run.paths, words.PREPARING)
    journal.record(run.paths, words.RUNNING, boot_id="boot")
    (way,) = Told().bring_up(box, led=Ports(run.paths.id, ((None, 8080),)))
    assert way.target.run == run.paths.id
