"""Run the programs of services as a job does: from a run's ro/, with its service.json, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.setup import services, wrapper
from tests.support.run_folder import RunFolder


def open_files(pid: int) -> set[str]:
    """Return what its descriptors refer to, as /proc shows it."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add(str(descriptor.readlink()))
    return found


class Program:
    """A running program, and what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def code(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)


class Served:
    """A run that is a service, without a supervisor."""

    def __init__(self, folder: Path, stack: ExitStack, kind: str, **settings: Any) -> None:
        self._stack = stack
        self.folder = folder
        self.sockets = folder / "s"
        self._tmp = folder / "tmp"
        self._tmp.mkdir()
        self.run = RunFolder(folder, f"{kind}-7f3k")
        service = {"kind": kind, "title": "digits on box", "idle": 3600.0, "run": None, **settings}
        job: Any = {"project": {"name": "digits"}, "host": {"runtime": "bare"}, "service": service, "image": None}
        paths = self.run.paths
        services.lay_out(paths, job, replace(wrapper.on_host(paths, "digits"), sockets=str(self.sockets)))
        self.programs = Path(paths.ro, "serve")

    def start(self, *argv: str, python: str = sys.executable, env: dict[str, str] | None = None) -> Program:
        """Start `argv`, which begins with the name of a program or with `-c`; end it with the test."""
        program = argv[0] if argv[0] == "-c" else str(self.programs / argv[0])
        log = self.folder / f"log-{time.monotonic_ns()}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [python, program, *argv[1:]],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": str(self._tmp), "PYTHONUNBUFFERED": "1", **(env or {})},
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return Program(process, log)


Make = Callable[..., Served]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Prepare a service of that kind, in short paths because there are sockets below."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        monkeypatch.setenv("GPURUN_LOCKS", name)
        yield lambda kind, **settings: Served(folder, stack, kind, **settings)
