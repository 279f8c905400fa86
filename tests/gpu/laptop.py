"""A laptop that has nothing yet, and one host: this machine, over a real ssh, without an engine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support import laptops

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
OVER = ("succeeded", "failed", "stopped", "lost")
LOOK_EVERY = 0.2  # seconds


class Failed(Exception):
    """A step did not show what it is there for."""


@dataclass
class Laptop:
    """Runs gpurun as a user types it. Every command and what it printed goes to `log`.

    Attributes:
        gpus: how many GPUs a run takes: 1, or 0 for a dry run on the CPU.
        deadline: by the monotonic clock; no command may go on after it.
    """

    folder: Path
    environment: dict[str, str]
    log: IO[str]
    gpus: int
    deadline: float = float("inf")
    project: Path = field(init=False)

    def __post_init__(self) -> None:
        self.project = self.folder / "none"

    @property
    def accelerator(self) -> str:
        return "gpu" if self.gpus else "cpu"

    @property
    def left(self) -> float:
        """Seconds until the deadline. Raises Failed when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failed("the time of this step is over")
        return left

    def use_example(self, name: str) -> None:
        """Make a fresh copy of an example the project that commands run in. Nothing is installed for it."""
        ignored = shutil.ignore_patterns("__pycache__", "checkpoints", "logs")
        self.project = self.folder / name
        if not self.project.exists():
            shutil.copytree(REPOSITORY / "examples" / name, self.project, ignore=ignored)
            with (self.project / "gpurun.toml").open("a") as settings:
                settings.write("\ndependencies = false\n")

    def use_scripts(self) -> None:
        """Make the scripts of this folder the project that commands run in."""
        self.project = self.folder / "scripts"
        if not self.project.exists():
            shutil.copytree(SCRIPTS, self.project, ignore=shutil.ignore_patterns("__pycache__"))
            (self.project / "gpurun.toml").write_text("dependencies = false\n")

    def run(self, argv: list[str], *, ok: bool = True, env: dict[str, str] | None = None) -> str:
        """Run a program in the project and return its stdout. Raises Failed when it fails, unless `ok` is False."""
        self.log.write(f"\n$ {shlex.join(argv)}\n")
        try:
            done = subprocess.run(
                argv,
                cwd=self.project if self.project.exists() else self.folder,
                env=env or self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"`{shlex.join(argv)}` had not ended when the time of this step was over") from None
        self.log.write(done.stdout + done.stderr + (f"exit code {done.returncode}\n" if done.returncode else ""))
        self.log.flush()
        if ok and done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()[-1]
            raise Failed(f"`{shlex.join(argv)}` ended with exit code {done.returncode}: {last}")
        return done.stdout

    def gpurun(self, *words: str, ok: bool = True) -> str:
        return self.run([sys.executable, "-P", "-m", "gpurun", *words], ok=ok)

    def json(self, *words: str, ok: bool = True) -> Any:
        return json.loads(self.gpurun(*words, "--json", ok=ok))

    def submit(self, script: str, *args: str, options: tuple[str, ...] = ()) -> str:
        """Submit a script of the project; return the run's id."""
        where = ["-H", "demo", "-g", str(self.gpus), "--runtime", "bare"]
        if not self.gpus:
            where += ["-e", "OMP_NUM_THREADS"]
        return self.gpurun("submit", script, *where, *options, "--", *args).strip()

    def status(self, run: str) -> dict[str, Any]:
        record: dict[str, Any] = self.json("status", run)["run"]
        return record

    def until(self, run: str, *states: str) -> dict[str, Any]:
        """Wait until the run is in one of these states. Raises Failed when it has ended in another."""
        while True:
            record = self.status(run)
            if record["state"] in states:
                return record
            if record["state"] in OVER:
                raise Failed(f"{run} is {record['state']}: {record.get('message') or self.last_line(run)}")
            time.sleep(min(LOOK_EVERY, self.left))

    def trained(self, script: str, *args: str, options: tuple[str, ...] = ()) -> str:
        """Submit a script and wait until it has succeeded; return the run's id."""
        run = self.submit(script, *args, options=options)
        self.until(run, "succeeded")
        return run

    def logs(self, run: str) -> str:
        return self.gpurun("logs", run)

    def last_line(self, run: str) -> str:
        lines = self.logs(run).strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def until_logged(self, run: str, text: str) -> None:
        """Wait until the run's log has this text."""
        while text not in self.logs(run):
            if self.status(run)["state"] in OVER:
                raise Failed(f"{run} ended without having printed {text!r}")
            time.sleep(min(LOOK_EVERY, self.left))

    def printed(self, output: str) -> dict[str, Any]:
        """Return the one JSON object that a script of ours printed."""
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if len(lines) != 1:
            raise Failed(f"one line of JSON was awaited, and {len(lines)} came")
        document: dict[str, Any] = json.loads(lines[0])
        return document

    def by_hand(self, script: str, *args: str) -> dict[str, Any]:
        """Run a script of the project without gpurun; return what it printed as JSON."""
        plain = {k: v for k, v in self.environment.items() if not k.startswith("GPURUN_")} | packages_of_jobs()
        return self.printed(self.run([sys.executable, script, *args], env=plain))

    def stop_all(self) -> None:
        """End every live run, so that the next step finds the GPU free."""
        self.deadline = time.monotonic() + 60
        live = [record["id"] for record in self.json("ps", "-H", "demo")["runs"]]
        if live:
            self.gpurun("stop", "--force", *live)


def packages_of_jobs() -> dict[str, str]:
    """Return the variables by which a training finds what its Python lacks; see run.sh."""
    return {"PYTHONPATH": os.environ.get("GPU_TEST_PACKAGES", "")}


@contextmanager
def new_laptop(log: IO[str], *, gpus: int) -> Iterator[Laptop]:
    """A laptop in a folder of its own, and the host. Both are gone afterwards."""
    from gpurun.demo.host import EmbeddedHost

    folder = Path(tempfile.mkdtemp(prefix="gpurun-gpu-", dir="/tmp"))  # short: there are sockets below it
    home, runtime = folder / "home", folder / "run"
    home.mkdir()
    runtime.mkdir(mode=0o700)
    try:
        with EmbeddedHost(folder / "host", environment=packages_of_jobs()) as host:
            environment = laptops.environment(home, runtime, host.ssh_command, columns=100)
            if packages := os.environ.get("PYTHONPATH"):  # those that run.sh has unpacked
                environment["PYTHONPATH"] += os.pathsep + packages
            if not gpus:  # threads of so small a model mostly wait for each other
                environment["OMP_NUM_THREADS"] = "1"
            yield Laptop(folder, environment, log, gpus)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
