"""Run a job as the wrapper starts it, without a host: the plugin is last on its path, and out/ and workspace are its own.

Trainings are forks of a process that has imported Lightning; the processes that DDP starts are new ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PLUGIN = REPOSITORY / "gpurun" / "agent" / "plugin"
SCRIPTS = Path(__file__).parent / "scripts"


class Zygote:
    """See zygote.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        self.numbers = count()
        self.exits: dict[int, int] = {}

    def fork(self, **order: Any) -> Training:
        assert self.process.stdin is not None
        number = next(self.numbers)
        print(json.dumps({"number": number, **order}), file=self.process.stdin, flush=True)
        message = self.read_message()
        while message["number"] != number:
            message = self.read_message()
        return Training(self, number, message["pid"], Path(order["log"]))

    def read_message(self) -> dict[str, int]:
        assert self.process.stdout is not None
        message: dict[str, int] = json.loads(self.process.stdout.readline())
        if "exit" in message:
            self.exits[message["number"]] = message["exit"]
        return message

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@dataclass
class Training:
    """A process that trains."""

    zygote: Zygote
    number: int
    pid: int
    log: Path

    def wait(self) -> int:
        while self.number not in self.zygote.exits:
            self.zygote.read_message()
        return self.zygote.exits[self.number]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()


@dataclass
class Job:
    """One run. Each `train` is an attempt; `with_plugin=False` runs the script without gpurun."""

    folder: Path
    zygote: Zygote
    with_plugin: bool = True
    attempts: int = 0
    said: str = ""
    started: list[Training] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tmp = tempfile.TemporaryDirectory(prefix="train", dir="/tmp")
        for part in (self.out, self.workspace):
            part.mkdir(parents=True)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def start(self, *command: str, resume: str | None = None) -> Training:
        """Start a script of tests/plugin/scripts by its name, or of any path, with its arguments."""
        self.attempts += 1
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        # On the file system of the checkpoints, and short: multiprocessing creates sockets in it, limited to 107 bytes.
        environment["TMPDIR"] = self.tmp.name
        if self.with_plugin:
            environment |= {
                "PYTHONPATH": os.pathsep.join([str(self.workspace), str(PLUGIN)]),
                "GPURUN_OUT": str(self.out),
                "GPURUN_WORKSPACE": str(self.workspace),
                "GPURUN_ATTEMPT": str(self.attempts),
                **({"GPURUN_RESUME": str(self.workspace / resume)} if resume else {}),
            }
        script, *arguments = command
        training = self.zygote.fork(
            script=str(SCRIPTS / script),
            arguments=arguments,
            cwd=str(self.workspace),
            environment=environment,
            log=str(self.out / f"log.{self.attempts}"),
        )
        self.started.append(training)
        return training

    def train(self, *command: str, resume: str | None = None, code: int = 0) -> str:
        """Run the training to its end; return everything that it printed."""
        training = self.start(*command, resume=resume)
        exit_code = training.wait()
        self.said = training.log.read_text()
        assert exit_code == code, self.said
        return self.said

    def progress(self) -> list[dict[str, Any]]:
        return self.lines("progress.jsonl")

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Return the newest line of each path, as the agent does."""
        newest = {line["path"]: line for line in self.lines("checkpoints.jsonl")}
        return {path: line for path, line in newest.items() if not line.get("removed")}

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.out / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stopped(self) -> dict[str, Any]:
        stopped: dict[str, Any] = json.loads((self.out / "stopped.json").read_text())
        return stopped

    def resume(self, *command: str) -> str:
        """Run the next attempt from the checkpoint of a stop, as the agent does."""
        (self.out / "stop").unlink(missing_ok=True)
        return self.train(*command, resume=self.stopped()["checkpoint"])

    def weights(self) -> str:
        return (self.workspace / "weights").read_text()

    def seen(self, rank: int = 0) -> list[str]:
        return (self.workspace / f"seen-{rank}").read_text().splitlines()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def job(tmp_path: Path, zygote: Zygote) -> Iterator[Callable[..., Job]]:
    made: list[Job] = []

    def make(name: str = "job", *, with_plugin: bool = True) -> Job:
        made.append(Job(tmp_path / name, zygote, with_plugin))
        return made[-1]

    yield make
    for training in [training for run in made for training in run.started]:
        if training.number not in zygote.exits:
            training.kill()
