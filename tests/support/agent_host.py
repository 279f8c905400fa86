"""The agent as a host runs it: its real archive, its own home, locks and boot, the oldest Python at hand."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpurun.agent import manifest
from gpurun.agent import vocabulary as words
from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.remote import bundle


def oldest_python() -> str:
    """The oldest Python of this machine that the agent promises to run on."""
    for minor in range(8, sys.version_info.minor):
        installed = sorted(map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")))
        for found in filter(None, [*installed, shutil.which(f"python3.{minor}")]):  # a shim of pyenv's may lead nowhere
            if subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                return found
    return sys.executable


class AgentHost:
    """A host without a network: questions go straight to the agent's process."""

    def __init__(self, root: Path, python: str) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        (root / "locks").mkdir()
        self.python = python
        self.agent = root / "agent"
        with tarfile.open(fileobj=io.BytesIO(bundle.current(cache=root / "bundles").read())) as archive:
            archive.extractall(self.agent, filter="data")
        self.boot_id = root / "boot_id"
        self.machine_id = root / "machine-id"
        self.boot_id.write_text(secrets.token_hex(16))
        self.machine_id.write_text(secrets.token_hex(16))
        # Few programs, so that no engine or GPU of the machine that tests is asked.
        (root / "bin").mkdir()
        for program in ("sh", "cp", "mkdir", "cat", "sleep"):
            (root / "bin" / program).symlink_to(shutil.which(program) or "")
        (root / "bin" / "python3").symlink_to(python)
        self.paths = HostPaths(str(self.home / ".gpurun"))
        self.profile_root: str | None = None  # what the laptop's profile of this host names
        self.more_env: dict[str, str] = {}

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": str(self.root / "bin"),
            "GPURUN_LOCKS": str(self.root / "locks"),
            "GPURUN_BOOT_ID_FILE": str(self.boot_id),
            "GPURUN_MACHINE_ID_FILE": str(self.machine_id),
            **self.more_env,
        }

    def ask(self, verb: str, **request: Any) -> Any:
        """The answer; AssertionError with the agent's words when it says no."""
        reply, _ = self.exchange(verb, **request)
        assert reply["ok"], reply
        return reply["answer"]

    def refused(self, verb: str, **request: Any) -> Any:
        reply, _ = self.exchange(verb, **request)
        assert not reply["ok"], reply
        return reply["error"]

    def exchange(self, verb: str, **request: Any) -> tuple[Any, bytes]:
        """The reply and the bytes behind it. Returns only when nobody holds the output open any more."""
        question = {
            "nonce": "n0nce",
            "protocol": words.PROTOCOL,
            "owner": "ada",
            "engine": None,
            "root": self.profile_root,
            **request,
        }
        argv = [self.python, "-I", "-S", str(self.agent), verb]
        done = subprocess.run(
            argv,
            input=json.dumps(question).encode() + b"\n",
            env=self.env,
            capture_output=True,
            check=False,
            timeout=120,
        )
        _, found, rest = done.stdout.partition(b"\nn0nce\n")
        assert found, done.stderr.decode()
        line, _, frames = rest.partition(b"\n")
        return json.loads(line), frames

    def submit(self, script: str, *, env: dict[str, str] | None = None, **changes: Any) -> RunPaths:
        """A run of `script` (Python) on the runtime `bare`, as a laptop would start it."""
        run = self.prepare(script, **changes)
        self.start(run, env=env or {})
        return run

    def prepare(self, script: str, **changes: Any) -> RunPaths:
        job = make_job(f"train-{secrets.token_hex(2)}", **changes)
        prepared = self.ask("prepare", job=job, total_bytes=len(script))
        run = self.paths.run(job["id"])
        Path(prepared["snapshot"], "train.py").write_text(script)
        return run

    def start(self, run: RunPaths, *, env: dict[str, str] | None = None) -> Any:
        sent = manifest.make(manifest.walk(run.snapshot))
        token = json.loads(Path(run.job).read_text())["token"]
        return self.ask("start", run=run.id, token=token, manifest=sent, env=env or {}, follow=False)

    def resume(self, run: RunPaths, **request: Any) -> Any:
        """The record of the next attempt."""
        asked = {"ask": secrets.token_hex(4), "from": None, "gpus": None, "env": {}, **request}
        return self.ask("resume", run=run.id, **asked)["run"]

    def status(self, run: RunPaths) -> Any:
        return self.ask("status", run=run.id)["run"]

    def wait(self, run: RunPaths, seconds: float = 60) -> Any:
        """The record at the run's end."""
        record = self.ask("wait", runs=[run.id], seconds=seconds)["runs"][0]
        assert not record["live"], (record, Path(run.supervisor_log).read_text())
        return record

    def until_running(self, run: RunPaths, text: bytes = b"") -> Any:
        """Wait until the job runs and its log holds `text`."""
        for _ in range(1200):
            record = self.status(run)
            log = Path(run.log)
            if record["state"] == words.RUNNING and (not text or (log.exists() and text in log.read_bytes())):
                return record
            assert record["live"], (record, self.ask("status", run=run.id))
            time.sleep(0.05)
        raise AssertionError((record, Path(run.supervisor_log).read_text()))

    def processes(self, *, holding: str | None = None) -> list[int]:
        """Processes of this host: those with its environment, or only those with the file `holding` open."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_mine(pid, holding)]

    def _is_mine(self, pid: int, holding: str | None) -> bool:
        try:
            if holding is None:
                return f"GPURUN_LOCKS={self.root}/locks".encode() in Path(f"/proc/{pid}/environ").read_bytes()
            return any(os.readlink(f"/proc/{pid}/fd/{fd}") == holding for fd in os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return False

    def lock_holders(self, name: str) -> list[int]:
        return self.processes(holding=str((self.root / "locks").resolve() / f"gpurun-{os.getuid()}" / name))

    def end_all(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def make_job(run_id: str, **changes: Any) -> dict[str, Any]:
    """job.json as the laptop makes it."""
    job: dict[str, Any] = {
        "schema": words.JOB_SCHEMA,
        "id": run_id,
        "token": secrets.token_hex(8),
        "name": "train",
        "owner": "ada",
        "created": time.time(),
        "project": {"name": "vision", "root": "/home/ada/vision"},
        "job_file": None,
        "command": ["python", "train.py"],
        "script": "train.py",
        "service": None,
        "notebook": None,
        "ports": [],
        "args": [],
        "resources": {"gpus": 0, "memory": None, "cpus": None, "shm": None},
        "runtime": "bare",
        "image": None,
        "base": None,
        "dockerfile": None,
        "env": [],
        "mounts": [],
        "data": None,
        "max_duration": None,
        "grace": 5.0,
        "retries": 0,
        "on_checkpoint": None,
        "on_end": None,
        "dependencies": None,
        "git": None,
        "keep_caps": [],
        "user": None,
        "profile": {"python": None, "engine": None, "pip_index": None, "registry_mirror": None},
        "fetch_hint": "gpurun fetch " + run_id,
    }
    return {**job, **changes}
