"""The part of the Jupyter service that can be tested without Jupyter: whether a command runs in a terminal."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.setup import services
from tests.support.waiting import eventually


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(services.PROGRAMS)
    yield importlib.import_module("jupyter_service")
    for name in ("jupyter_service", "service_settings"):
        sys.modules.pop(name, None)


def test_children_returns_live_processes(module: Any) -> None:
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
        eventually(lambda: module.children(shell.pid) == [])
        shell.stdin.write(b"\n")
        shell.stdin.close()


@pytest.mark.parametrize("length", [20, 200])
def test_sockets_of_a_kernel_fit_however_long_the_path_to_them_is(module: Any, tmp_path: Path, length: int) -> None:
    wanted = tmp_path / ("x" * length)
    folder = module.short_enough(str(wanted))
    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as kernel:
        kernel.bind(folder + module.KERNEL_SOCKET)
    shutil.rmtree(folder)


def test_folder_of_a_kernels_sockets_is_the_one_that_was_wanted_where_that_is_short(
    module: Any, tmp_path: Path
) -> None:
    short = tempfile.mkdtemp(dir="/tmp")
    assert module.short_enough(f"{short}/j") == f"{short}/j"
    shutil.rmtree(short)
    assert not module.short_enough(f"{tmp_path}/{'x' * 100}").startswith(str(tmp_path))
