"""The findings of a GPU check, as they come in its run's log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpurun.agent.setup import services
from gpurun.commands.submit import Begun
from gpurun.config.hosts import HostProfile
from gpurun.events import Event, ignore
from gpurun.hosts.findings import Finding
from gpurun.hosts.verify import Findings, Verdict, Wish, follow, plan, start
from tests.support.part import part

LINE = json.dumps({"topic": "CUDA", "status": "fail", "found": "none", "mend": "do"}).encode() + b"\n"


def test_findings_come_in_pieces_among_other_lines() -> None:
    told: list[Finding] = []
    other: list[bytes] = []
    findings = Findings(told.append, other.append)
    for piece in (b"UserWarning: x\n" + LINE[:10], LINE[10:] + b'{"no": "finding"}\n[1]\n'):
        findings.feed(piece)
    assert told == findings.found == [Finding("CUDA", "fail", "none", "do")]
    assert other == [b"UserWarning: x\n", b'{"no": "finding"}\n', b"[1]\n"]


def test_the_verdict() -> None:
    good, bad = Finding("a", "ok", ""), Finding("b", "fail", "")
    assert Verdict((good, Finding("c", "warn", "")), part({})).ok
    assert not Verdict((good, bad), part({})).ok
    assert not Verdict((), part({})).ok


def test_the_run_is_of_no_project_and_stands_in_line() -> None:
    made = plan(HostProfile("box"), Wish(2, "v2.7"))
    assert made.files.count == 0
    assert made.job["resources"]["gpus"] == 2
    assert made.job["base"] is not None
    assert made.job["base"]["name"] == "v2.7"
    assert made.job["max_duration"] == 900.0
    assert services.command(part(made.job), "/ro") == ["python", "/ro/serve/gpucheck_service.py"]
    assert services.tools(part({**made.job, "image": "nvcr.io/x", "host": {"runtime": "docker"}})) == []


class Wire:
    """A host where the check that began first has ended when the second one asks."""

    host = "box"
    connection = None

    def __init__(self) -> None:
        self.state, self.prepared = "running", list[str]()

    def ask(self, verb: str, request: Any, **_: Any) -> Any:
        job = request["job"]
        self.prepared.append(job["id"])
        told = {"id": job["id"], "name": "gpucheck", "project": "gpucheck", "created": job["created"], "host_id": "h"}
        state = self.state if self.prepared.count(job["id"]) > 1 or self.state == "running" else "running"
        return {"run": {**told, "state": state, "started": 1.0, "attempt": 1}, "snapshot": "/s", "link_dest": []}


@pytest.mark.usefixtures("home")
def test_check_behind_one_that_was_killed_and_has_ended_is_another_run() -> None:
    def killed(event: Event) -> None:
        if isinstance(event, Begun):
            raise KeyboardInterrupt

    wire = Wire()
    with pytest.raises(KeyboardInterrupt):
        start(wire, HostProfile("box"), Wish(), killed)  # type: ignore[arg-type]
    wire.state = "succeeded"
    record = start(wire, HostProfile("box"), Wish(), ignore)  # type: ignore[arg-type]
    first, taken_over, second = wire.prepared
    assert (first, record["id"]) == (taken_over, second)
    assert first != second


@pytest.mark.usefixtures("home")
def test_check_behind_one_that_was_killed_and_still_runs_goes_on_with_it() -> None:
    def killed(event: Event) -> None:
        if isinstance(event, Begun):
            raise KeyboardInterrupt

    wire = Wire()
    with pytest.raises(KeyboardInterrupt):
        start(wire, HostProfile("box"), Wish(), killed)  # type: ignore[arg-type]
    assert start(wire, HostProfile("box"), Wish(), ignore)["id"] == wire.prepared[0]  # type: ignore[arg-type]


def test_check_that_tried_nothing_calls_no_gpu_good() -> None:
    findings = Findings(lambda _: None, lambda _: None)
    findings.add(Finding("nvidia-smi", "ok", "8x H100"))
    verdict = follow(None, part({"id": "gpucheck-2222", "state": "succeeded"}), None, findings)  # type: ignore[arg-type]
    assert not verdict.ok
