"""What of Jupyter's terminals computes; Jupyter itself is tried in the lab."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gpurun.agent import services
from tests.unit.agent.serve.conftest import until


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(services.PROGRAMS)
    yield importlib.import_module("jupyter_service")
    for name in ("jupyter_service", "shell_service", "told"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("command", "computing"), [("read line; true", False), ("sleep 60; true", True), ("exec sleep 60", True)]
)
def test_a_shell_at_its_prompt_does_not_compute(module: Any, command: str, *, computing: bool) -> None:
    def computes() -> bool:
        return bool(module.computes([f"/proc/{pid}" for pid in module.with_children(shell.pid)]))

    with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE) as shell:
        until(lambda: computes() is computing)
        for pid in module.with_children(shell.pid):
            os.kill(pid, 9)
