"""What unit tests of the agent share."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent import machine
from gpurun.agent.host import locks
from gpurun.agent.paths import HostPaths


@pytest.fixture(autouse=True)
def root_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works for one root, as the agent does: suites side by side have runs of the same ids."""
    root = tmp_path / "root of locks"
    root.mkdir()
    machine.make_root_id(HostPaths(str(root)))
    monkeypatch.setattr(locks, "_works_for", [HostPaths(str(root))])
