"""`host check --gpu`: a run that tries every GPU of a host, in the container or environment that jobs get.

It is a run like any other: it stands in line for its GPUs, and can be followed and stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpurun.agent import vocabulary as words
from gpurun.errors import GpurunError, HostError
from gpurun.hosts.findings import FAIL, OK, Finding
from gpurun.store import run_questions, run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Service
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.follow import Listener
    from gpurun.commands.submit import Plan
    from gpurun.config.hosts import HostProfile
    from gpurun.events import Report
    from gpurun.remote.wire import Wire

FACTS_IN = 60.0  # seconds: nvidia-smi and the engine may each take their time
AT_MOST = 900.0  # seconds for the tries themselves


class NoGpu(GpurunError):
    """There is no GPU to try."""

    exit_code = words.EXIT_NO_GPU


@dataclass(frozen=True)
class Wish:
    """What is to be tried: how many GPUs, and in which image (None: gpurun's)."""

    gpus: int | Literal["all"] = "all"
    image: str | None = None


@dataclass(frozen=True)
class Verdict:
    """All that was found; `record` is that of the run."""

    findings: tuple[Finding, ...]
    record: RunRecord

    @property
    def ok(self) -> bool:
        return bool(self.findings) and all(each.status != FAIL for each in self.findings)


class Findings:
    """Reads the findings out of the run's log, which may come in pieces; what is none goes to `other`."""

    def __init__(self, tell: Callable[[Finding], None], other: Callable[[bytes], None]) -> None:
        self.found: list[Finding] = []
        self.tried = 0  # findings of the run itself
        self._tell, self._other, self._rest = tell, other, b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(line)

    def add(self, finding: Finding) -> None:
        self.found.append(finding)
        self._tell(finding)

    def _read(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            finding = Finding(told["topic"], told["status"], told["found"], told["mend"])
        except (ValueError, TypeError, KeyError):
            self._other(line + b"\n")
            return
        self.tried += 1
        self.add(finding)


def look(wire: Wire) -> Finding:
    """What the host says of its GPUs. Raises NoGpu, and HostError when its driver does not answer."""
    facts = wire.ask("facts", {}, timeout=FACTS_IN)
    error = facts["gpus_error"]
    if error:
        raise HostError(error["what"], error["next"], where=wire.host, code=error["code"])
    if not facts["gpus"]:
        raise NoGpu(
            f"{wire.host} has no GPU: nvidia-smi lists none",
            "with GPUs in it, the host needs the NVIDIA driver; jobs run on its CPU with --gpus 0",
            where=wire.host,
        )
    names = [gpu["name"] for gpu in facts["gpus"]]
    counted = ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names))
    return Finding("nvidia-smi", OK, f"{counted}, driver {facts['driver']}")


def start(wire: Wire, host: HostProfile, wish: Wish, report: Report) -> RunRecord:
    """Submit the check; its record. Raises what a submit raises, an old driver and a full disk among it."""
    from gpurun.commands.submit import submit

    return submit(wire, plan(host, wish), report, follow=False).record


def plan(host: HostProfile, wish: Wish) -> Plan:
    """A run of no project: the program is the agent's."""
    from gpurun.commands.submit import Plan
    from gpurun.config.load import Loaded
    from gpurun.config.project import Files, Project
    from gpurun.config.schema import JobConfig
    from gpurun.job.files import FileList
    from gpurun.job.spec import make_job

    spec = JobConfig(gpus=wish.gpus, image=wish.image, max_duration=AT_MOST, grace=0.0)
    loaded = Loaded(
        spec, Project(Path("/"), words.GPU_CHECK, "folder", False, Files(Path("/"))), host, {}, {}, None, ()
    )
    files = FileList(Path("/"), ())
    service: Service = {"kind": words.GPU_CHECK, "run": None, "title": f"GPUs of {host.name}", "idle": 0}
    job = make_job(loaded, files, now=time.time(), dependencies=None, service=service)
    return Plan(loaded, files, job, (), needs_agent=False)


def follow(wire: Wire, record: RunRecord, listener: Listener, findings: Findings) -> Verdict:
    """Stay until it has ended. A run that ended before its program spoke is a finding too."""
    from gpurun.commands.follow import show_log

    if not words.is_over(record):
        record = show_log(wire, {"run": record["id"], "follow": True, "offset": 0}, listener)
    failed = any(each.status == FAIL for each in findings.found)
    if record["state"] != words.SUCCEEDED and not failed:
        what = record["message"] or f"the check ended as {record['state']} (exit code {record['exit_code']})"
        findings.add(Finding("check", FAIL, what, record["next"] or f"gpurun logs {record['id']}"))
    elif not findings.tried:
        what = "the check ended and has said nothing of any GPU"
        findings.add(Finding("check", FAIL, what, f"gpurun logs {record['id']}"))
    return Verdict(tuple(findings.found), record)


def stop(wire: Wire, run: str) -> None:
    """Nobody waits for it any more."""
    run_questions.ask(wire, "stop", {"runs": [run], "grace": 0, "force": True}, [run], timeout=30)


def clear(wire: Wire, run: str) -> None:
    """Take away what a check leaves behind when there is nothing to look up in it."""
    wire.ask("rm", {"runs": [run]}, idempotent=False, timeout=60)
    run_store.remove(run)
