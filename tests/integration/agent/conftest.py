"""The agent as a host runs it, on the oldest Python at hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpurun.agent import machine
from gpurun.agent.host import locks
from gpurun.agent.paths import HostPaths
from tests.support.agent_host import AgentHost, oldest_python


@pytest.fixture(scope="session")
def python() -> str:
    """The oldest Python at hand; which one it is stands in the run's output."""
    found = oldest_python()
    print(f"agent tests run on {found}", file=sys.__stderr__)
    return found


@pytest.fixture(autouse=True)
def root_of_locks(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works for one root, as the agent does: suites side by side have runs of the same ids."""
    root = tmp_path / "home/.gpurun"
    if "agent" not in request.fixturenames:
        root = tmp_path / "root of locks"
        root.mkdir()
        machine.make_root_id(HostPaths(str(root)))
    monkeypatch.setattr(locks, "_works_for", [HostPaths(str(root))])


@pytest.fixture
def agent(tmp_path: Path, python: str) -> Iterator[AgentHost]:
    host = AgentHost(tmp_path, python)
    yield host
    host.end_all()
