"""The command line as a person uses it: a laptop of its own, a real ssh, a real rsync, and the embedded SSH host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import laptops

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

REPOSITORY = Path(__file__).parents[2]

SCRIPT = """\
import os, sys, time
steps, code = int(sys.argv[1]), int(sys.argv[2])
for step in range(steps):
    print("step", step, flush=True)
    time.sleep(0.1)
open("weights.ckpt", "wb").write(os.urandom(1000))
print("done", flush=True)
sys.exit(code)
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass
class Laptop:
    """A home with nothing in it, a project, and the one host that `ssh` knows (as `demo`)."""

    home: Path
    project: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *args: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start gpurun in the project."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpurun", *args],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **{"stdout": subprocess.PIPE, **more},
        )
        self.started.append(process)
        return process

    def gpurun(self, *args: str, timeout: float = 180) -> Done:
        process = self.start(*args)
        out, err = process.communicate(timeout=timeout)
        return Done(process.returncode, out.decode(), err.decode())

    def ok(self, *args: str, timeout: float = 180) -> str:
        """The output of a command that must succeed."""
        done = self.gpurun(*args, timeout=timeout)
        assert done.code == 0, done.err
        return done.out

    def submit(self, *args: str) -> str:
        """Start a run on the CPU without a container; its id."""
        return self.ok("submit", *ON_HOST, *args).strip()

    def json(self, *args: str) -> Any:
        return json.loads(self.ok(*args, "--json"))

    def state(self, run: str) -> str:
        return str(self.json("status", run)["run"]["state"])

    def until(self, run: str, *states: str, seconds: float = 120) -> str:
        """Wait until the run is in one of these states."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (state := self.state(run)) in states:
                return state
            time.sleep(0.1)
        raise AssertionError(f"{run} is {self.state(run)}, and {states} was awaited")


ON_HOST = ("-H", "demo", "-g", "0", "--runtime", "bare")


@pytest.fixture
def laptop(embedded_host: EmbeddedHost) -> Iterator[Laptop]:
    """A fresh laptop for each test; its runs are ended when the test is over."""
    directory = Path(tempfile.mkdtemp(prefix="gpurun-e2e-", dir="/tmp"))  # short: there are sockets below it
    home, runtime, project = directory / "home", directory / "run", directory / "vision"
    for folder in (home, project):
        folder.mkdir()
    runtime.mkdir(mode=0o700)
    (project / "train.py").write_text(SCRIPT)
    (project / "gpurun.toml").write_text("")
    environment = laptops.environment(home, runtime, embedded_host.ssh_command, columns=80)
    laptop = Laptop(home, project, dict(environment))
    yield laptop
    laptop.environment = environment
    for process in laptop.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    live = [run["id"] for run in laptop.json("ps", "-H", "demo")["runs"]]
    if live:
        laptop.gpurun("stop", "--force", *live)
    subprocess.run([*embedded_host.ssh_command, "-O", "exit", "demo"], capture_output=True, check=False)
    shutil.rmtree(directory, ignore_errors=True)
