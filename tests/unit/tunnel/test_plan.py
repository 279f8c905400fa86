"""The plan of a tunnel, from the command line, the project's settings and the stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.config import hosts
from gpurun.errors import UsageError
from gpurun.store import run_store
from gpurun.tunnel import plan
from gpurun.tunnel.plan import Ports, TunnelOptions
from gpurun.tunnel.services import Service
from tests.support.part import part

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
    run_store.add(part(fields), host)
    run_store.update([part({**fields, "project": root.name, "state": state})], host)


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
def test_make_without_a_run(project: Path, options: Any, services: tuple[Service, ...], ports_: Ports) -> None:
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
    fields: Any = {"ports": [{"local": None, "remote": 8080}]}
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
