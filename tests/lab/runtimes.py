"""Runtimes as a supervisor uses them, on a lab host: the agent's code is copied there and asked in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.users import ADA, User

BASE = {"name": "v2.8", "reference": BASE_IMAGE, "torch": "2.8.0"}
REPOSITORY = Path(__file__).resolve().parents[2]

# Runs on the host. Answers in one line of JSON; what `say` got goes to the run's prepare.log.
ASK = """
import dataclasses, json, os, sys, time
sys.path.insert(0, os.path.expanduser("~/code"))
from gpurun.agent import runtimes
from gpurun.agent.errors import AgentError, RunFailed
from gpurun.agent.host import gpus
from gpurun.agent.paths import HostPaths
from gpurun.agent.setup import wrapper

asked = json.load(sys.stdin)
job = asked["job"]
run = HostPaths.of(None).run(job["id"])
runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])

def say(text):
    with open(run.prepare_log, "ab") as log:
        log.write(text)

def do(step):
    if step == "prepare":
        return runtime.prepare(run, job, say)
    if step == "start":
        with open(run.prepared) as file:
            prepared = json.load(file)
        return runtime.create_and_start(run, job, prepared, [gpus.Gpu(**one) for one in asked["gpus"]], [])
    if step == "presence":
        return dataclasses.asdict(runtime.presence(run, job))
    if step == "shell":
        return runtime.shell(run, job, asked["command"], False)
    if step == "env":
        return wrapper.write_env(run, asked["env"])
    if step == "wait":
        before = time.monotonic()
        runtime.wait(run, job, asked["seconds"])
        return time.monotonic() - before
    if step == "remove":
        return runtime.remove(run, job)
    return runtime.signal(run, job, step)

try:
    for step in asked["steps"]:
        answer = do(step)
    print(json.dumps({"answer": answer}))
except RunFailed as failed:
    print(json.dumps({"failed": [failed.reason, failed.what, failed.next_step]}))
except AgentError as error:
    print(json.dumps({"error": error.as_json()}))
"""


class Failed(Exception):
    """The runtime raised RunFailed: reason, what, next."""


@dataclass
class JobOnHost:
    """One job and the runtime under it. `files` are written into the workspace."""

    host: LabHost
    files: dict[str, str]
    command: list[str]
    runtime: str = "docker"
    user: User = ADA
    id: str = "train-7f3k"
    more: dict[str, Any] = field(default_factory=dict)
    gpus: int = 0
    env: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)  # of the supervisor

    def __post_init__(self) -> None:
        install_agent(self.host, self.user)
        self.run.mkdir(parents=True, exist_ok=True)
        own(self.host.root / self.user.home.lstrip("/"), self.user)
        for name, text in self.files.items():
            self.write(self.run / "workspace" / name, text)
        self.ask("env", env=self.env)

    @property
    def run(self) -> Path:
        """The run's directory, seen from out here."""
        return self.host.root / self.user.home.lstrip("/") / ".gpurun/runs" / self.id  # with what tests mounted there

    @property
    def secrets(self) -> Path:
        return self.run.parent.parent / "secrets" / self.id

    @property
    def container(self) -> str:
        return f"gpurun-{self.id}"

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        own(self.host.root / self.user.home.lstrip("/"), self.user)

    def job(self) -> dict[str, Any]:
        return {
            "id": self.id, "token": "t0", "name": "train", "owner": self.user.alias, "project": {"name": "vision"},
            "command": self.command, "image": None, "base": BASE, "env": [], "mounts": [], "dependencies": None, "git": None,
            "keep_caps": [], "user": None, "max_duration": None, "grace": 60.0, "attempt": 1, "resume": None,
            "resources": {"gpus": self.gpus, "memory": None, "cpus": None, "shm": None},
            "profile": {"python": None, "pip_index": None, "registry_mirror": None},
            "host": {"runtime": self.runtime, "engine": ["docker"] if self.runtime == "docker" else None},
            **self.more,
        }  # fmt: skip

    def ask(self, *steps: str, timeout: float = 300, **fields: Any) -> Any:
        """The answer of the last of these steps: prepare, start, presence, wait, TERM, KILL, remove, shell."""
        gpus = [
            {"index": index, "uuid": uuid, "name": "A100", "memory": 0, "used": 0}
            for index, uuid in enumerate(self.host.gpus.uuids[: self.gpus])
        ]
        asked = {"job": self.job(), "steps": steps, "gpus": gpus, **fields}
        variables = [f"{name}={value}" for name, value in self.environ.items()]
        command = ["env", *variables, "python3", "-c", ASK]
        said = self.host.run(*command, user=self.user, stdin=json.dumps(asked).encode(), timeout=timeout)
        answer = json.loads(said.splitlines()[-1])
        if "failed" in answer or "error" in answer:
            raise Failed(*answer.get("failed", [answer.get("error")]))
        return answer["answer"]

    def end(self, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until it has exited; what the runtime says of its end."""
        self.ask("wait", seconds=seconds)
        presence: dict[str, Any] = self.ask("presence")
        assert presence["kind"] == "exited", presence
        return presence

    @property
    def log(self) -> str:
        return self.text(self.run / "out/log")

    @property
    def prepare_log(self) -> str:
        return self.text(self.run / "prepare.log")

    def text(self, path: Path) -> str:
        return path.read_text(errors="replace") if path.exists() else ""


def install_agent(host: LabHost, user: User) -> None:
    """The agent's code in the user's home, laid out as it travels."""
    code = host.home(user) / "code"
    if not code.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "gpurun/agent", code / "gpurun/agent", ignore=ignored)
        shutil.copytree(REPOSITORY / "docker", code / "gpurun/agent/image")
        (code / "gpurun/__init__.py").touch()
    own(host.home(user), user)


def own(folder: Path, user: User) -> None:
    """Give it all to the user: tests write as root."""
    for base, folders, files in os.walk(folder):
        for name in [".", *folders, *files]:
            os.chown(Path(base, name), user.uid, user.uid, follow_symlinks=False)
