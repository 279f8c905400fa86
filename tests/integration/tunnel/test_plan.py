"""The plan of a tunnel, from the command line, the project's settings and the stored runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.state import journal
from gpurun.config import hosts
from gpurun.errors import UsageError
from gpurun.events import Doing, Event
from gpurun.tunnel import plan, ports
from gpurun.tunnel.link import Target
from gpurun.tunnel.plan import Ports, TunnelPlan
from gpurun.tunnel.services import Service
from tests.integration.tunnel.conftest import Box
from tests.integration.tunnel.test_services import StateListener
from tests.unit.tunnel.test_plan import BOARD, NONE, project

__all__ = ["project"]


class Starter:
    """Starts services and keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def start_services(self, box: Box, *services: Service, ports_: Ports = NONE) -> tuple[plan.Route, ...]:
        from gpurun.config.load import load

        hosts.add("demo", {})
        made = TunnelPlan(box.wire, load({"host": "demo"}, None, need_script=False), services, ports_)
        return plan.start_services(made, self.report, StateListener()).routes

    def report(self, event: Event) -> None:
        if isinstance(event, Doing):
            self.messages.append(event.text)


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
