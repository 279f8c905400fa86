"""What of Jupyter's service is ours to try without Jupyter: whether something runs in one of its terminals."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gpurun.agent.setup import services
from tests.integration.agent.serve.conftest import until


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(services.PROGRAMS)
    yield importlib.import_module("jupyter_service")
    for name in ("jupyter_service", "told"):
        sys.modules.pop(name, None)


def test_the_children_of_a_shell_are_those_that_live(module: Any) -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo; read line; kill $!; wait; read line"], stdin=-1, stdout=-1
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        assert len(module.children(shell.pid)) == 1
        assert shell.pid in module.children(os.getpid())
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        until(lambda: module.children(shell.pid) == [])
        shell.stdin.write(b"\n")
        shell.stdin.close()
