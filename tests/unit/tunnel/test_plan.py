"""The plan of a tunnel, from the command line, the project's settings and the stored runs."""

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
from gpurun.tunnel.plan import Ports, TunnelOptions, TunnelPlan
from gpurun.tunnel.services import Service
from tests.unit.tunnel.conftest import Box
from tests.unit.tunnel.test_services import StateListener

BOARD, LAB = Service(words.TENSORBOARD, "digits"), Service(words.JUPYTER, "digits")
NONE = Ports(None, ())


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make two hosts, and a project as the current folder."""
    hosts.add("box", {})
    hosts.add("other", {})
    hosts.use("box")
    root = home / "digits"
    root.mkdir()
    (root / "gpurun.toml").write_text("ports = [8080]\n")
    monkeypatch.chdir(root)
    return root


def store_run(root: Path, run: str, *, host: str = "box", state: str = words.RUNNING, **job: Any) -> None:
    fields = {"id": run, "name": run[:-5], "created": 1.0, "project": {"name": root.name, "root": str(root)}, **job}
    run_store.add(fields, host)
    run_store.update([{**fields, "project": root.name, "state": state}], host)


def plan_of(**options: Any) -> tuple[tuple[Service, ...], Ports]:
    made = plan.make(TunnelOptions(**options))
    return made.services, made.ports


@pytest.mark.parametrize(
    ("options", "services", "ports_"),
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
def test_make_without_a_run(
    project: Path, options: dict[str, Any], services: tuple[Service, ...], ports_: Ports
) -> None:
    assert plan_of(**options) == (services, ports_)


def test_make_in_a_folder_without_a_project_is_refused(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "downloads"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="not a project"):
        plan_of()
    assert plan_of(ports=("8888",))[1].pairs == ((None, 8888),)
    store_run(folder, "train-7f3k")
    assert plan_of()[0] == (Service(words.TENSORBOARD, "downloads"),)


def test_make_for_a_run_opens_its_tensorboard_and_its_ports(project: Path) -> None:
    store_run(project, "train-1111", ports=[{"local": 9000, "remote": 8000}])
    board = Service(words.TENSORBOARD, "digits", "train-1111")
    named = Ports("train-1111", ((9000, 8000),), explicit=False)
    assert plan_of(run="train-1111") == ((board,), named)
    assert plan_of(run="train") == ((board,), named)
    assert plan_of(run="train", tensorboard=True) == ((board,), NONE)
    assert plan_of(run="train", ports=("7000",)) == ((), Ports("train-1111", ((None, 7000),)))


def test_make_opens_the_ports_of_the_newest_live_run_on_the_host(project: Path) -> None:
    fields: dict[str, Any] = {"ports": [{"local": None, "remote": 8080}]}
    store_run(project, "train-1111", created=1.0, **fields)
    store_run(project, "train-2222", created=2.0, **fields)
    store_run(project, "train-3333", created=3.0, state=words.SUCCEEDED, **fields)
    store_run(project, "train-4444", created=4.0, host="other", **fields)
    store_run(project.parent, "train-5555", created=5.0, **fields)
    store_run(project, "train-6666", created=6.0, ports=[])
    assert plan_of() == ((BOARD,), Ports("train-2222", ((None, 8080),), explicit=False))


@pytest.mark.parametrize("about", [None, "train-1111"])
def test_make_for_the_run_of_a_service_opens_that_service(project: Path, about: str | None) -> None:
    store_run(project, "tensorboard-2222", service={"kind": words.TENSORBOARD, "run": about})
    assert plan_of(run="tensorboard-2222")[0] == (Service(words.TENSORBOARD, "digits", about),)


def test_make_for_a_run_of_another_project_uses_that_project(project: Path) -> None:
    store_run(project.parent / "vision", "train-1111")
    assert plan_of(run="train-1111")[0] == (Service(words.TENSORBOARD, "vision", "train-1111"),)


def test_make_uses_the_host_of_the_run(project: Path) -> None:
    store_run(project, "train-1111", host="other")
    assert plan.make(TunnelOptions(run="train-1111")).wire.host == "other"
    assert plan.make(TunnelOptions(run="train-1111", host="other")).wire.host == "other"
    assert plan.make(TunnelOptions(host="other")).wire.host == "other"
    assert plan.make(TunnelOptions()).wire.host == "box"
    with pytest.raises(UsageError, match="train-1111 is on other, not on box"):
        plan.make(TunnelOptions(run="train-1111", host="box"))


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "1:2:3", ":80", "80:", "-1", "8080/tcp", "127.0.0.1:80"])
def test_make_refuses_an_invalid_port_with_an_example(project: Path, text: str) -> None:
    with pytest.raises(UsageError, match="-p: ") as raised:
        plan.make(TunnelOptions(ports=(text,)))
    assert raised.value.exit_code == 2
    assert "-p 9000:8080" in raised.value.next_step


def test_gpus_option_is_for_the_jupyter_session(project: Path) -> None:
    assert plan.make(TunnelOptions(jupyter=True, gpus="3")).loaded.spec.gpus == 3


class Starter:
    """Starts services and keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def start_services(self, box: Box, *services: Service, ports_: Ports = NONE) -> tuple[plan.Route, ...]:
        from gpurun.config.load import load

        hosts.add("demo", {})
        made = TunnelPlan(box.wire, load({"host": "demo"}, None, need_script=False), services, ports_)
        report = Report(self.messages.append, lambda _: None, lambda _: None, lambda *_: None)
        return plan.start_services(made, report, StateListener(), self.messages.append).routes


def test_running_service_gets_a_port_of_its_own(box: Box, project: Path) -> None:
    run, starter = box.service(), Starter()
    (route,) = starter.start_services(box, BOARD)
    assert (route.target, route.what) == (Target("TensorBoard", run.paths.id), "TensorBoard of digits")
    assert route.port == ports.stable("demo", "digits", words.TENSORBOARD, "")
    assert starter.messages == ["asking demo"]


def test_routes_of_ports_of_a_live_run_and_of_the_host(box: Box, project: Path) -> None:
    run = box.run()
    first, second = Starter().start_services(box, ports_=Ports(run.paths.id, ((9000, 8080), (None, 6006))))
    assert (first.target, first.port) == (Target("port 8080", run.paths.id, 8080), 9000)
    assert (second.target, second.port) == (Target("port 6006", run.paths.id, 6006), 6006)
    assert second.what == f"port 6006 of {run.paths.id}"
    (route,) = Starter().start_services(box, ports_=Ports(None, ((None, 5432),)))
    assert (route.target, route.what) == (Target("port 5432", None, 5432), "port 5432 of demo")


def test_two_listeners_to_one_port_have_different_names_and_duplicates_are_dropped(box: Box, project: Path) -> None:
    routes = Starter().start_services(box, ports_=Ports(None, ((None, 8080), (9000, 8080), (8080, 8080), (None, 6006))))
    assert [(route.target.name, route.port) for route in routes] == [
        ("port 8080 at 8080", 8080),
        ("port 8080 at 9000", 9000),
        ("port 6006", 6006),
    ]


def test_ports_of_an_ended_run_are_refused(box: Box, project: Path) -> None:
    run = box.run()
    run.end()
    with pytest.raises(UsageError, match="has ended") as raised:
        Starter().start_services(box, ports_=Ports(run.paths.id, ((None, 8080),)))
    assert raised.value.next_step == f"gpurun logs {run.paths.id}"
    assert Starter().start_services(box, ports_=Ports(run.paths.id, ((None, 8080),), explicit=False)) == ()


def test_run_in_preparation_is_waited_for(box: Box, project: Path) -> None:
    run = box.run()
    journal.record(run.paths, words.PREPARING)
    journal.record(run.paths, words.RUNNING, boot_id="boot")
    (route,) = Starter().start_services(box, ports_=Ports(run.paths.id, ((None, 8080),)))
    assert route.target.run == run.paths.id
