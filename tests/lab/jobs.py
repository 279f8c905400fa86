"""Jobs of the lab's tests: submitted, watched and disturbed as a user or the world would."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurun.agent import vocabulary as words
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop, Result
from tests.lab.host.users import ADA, User

SLEEPER = "import time; print('here', flush=True); time.sleep(600)\n"
PATIENCE = 60.0  # seconds: only a test that fails waits so long


@dataclass
class Jobs:
    """Submits scripts from one laptop to one alias; `host` is the machine behind it."""

    laptop: Laptop
    host: LabHost
    alias: str = "ada"
    user: User = ADA

    def submit(self, script: str, *arguments: str, name: str = "job", gpus: int = 0) -> str:
        """The id of a run of `script`, which was started and returned from."""
        project = self.laptop.project({"gpurun.toml": "", f"{name}.py": script})
        done = self.laptop.gpurun(
            "submit", f"{name}.py", "-H", self.alias, "-g", str(gpus), *arguments, cwd=project, timeout=600
        )
        return done.stdout.strip()

    def ask(self, *arguments: str, **options: Any) -> Result:
        return self.laptop.gpurun(*arguments, **options)

    def record(self, run: str) -> dict[str, Any]:
        """The RunRecord, asked through the agent: this reconciles, as every verb does."""
        found: dict[str, Any] = self.ask("status", run, "--json").json["run"]
        return found

    def until(self, run: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The record as soon as it fits."""
        deadline = time.monotonic() + PATIENCE
        while True:
            record = self.record(run)
            if fits(record):
                return record
            assert time.monotonic() < deadline, record
            time.sleep(0.1)

    def until_running(self, run: str) -> dict[str, Any]:
        """Wait until the job has printed its first line."""
        return self.until(run, lambda record: record["state"] == words.RUNNING and bool(record["log_bytes"]))

    def until_ended(self, run: str) -> tuple[str, str, int | None]:
        """(state, reason, exit code)."""
        record = self.until(run, lambda record: not record["live"])
        return record["state"], record["reason"], record["exit_code"]

    def folder(self, run: str) -> Path:
        """The run's directory on the host, seen from the tests."""
        return self.host.home(self.user) / ".gpurun/runs" / run

    def secrets(self, run: str) -> Path:
        """The folder of the run's secrets on the host."""
        return self.host.home(self.user) / ".gpurun/secrets" / run

    def events(self, run: str) -> list[str]:
        """The journal, untended."""
        lines = (self.folder(run) / "events.jsonl").read_text().splitlines()
        return [line.split('"event": "')[1].split('"')[0] for line in lines]

    def supervisors(self, run: str) -> list[int]:
        """Pids (of the machine that tests) of the processes that hold the run's lock."""
        name = f"/tmp/gpurun-{self.user.uid}/run-{run}"
        return [pid for pid in self.host.box.processes(self.user.uid) if name in _open_files(pid)]

    def kill_supervisor(self, run: str) -> None:
        pids = self.supervisors(run)
        assert pids, "no supervisor stands"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while self.supervisors(run):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def container(self, run: str) -> str:
        return words.CONTAINER_PREFIX + run


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(fd.readlink()))
    return found
