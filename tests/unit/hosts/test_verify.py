"""The findings of a GPU check, as they come in its run's log."""

from __future__ import annotations

import json

from gpurun.agent import services
from gpurun.config.hosts import Host
from gpurun.hosts.findings import Finding
from gpurun.hosts.verify import Findings, Verdict, Wish, plan

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
    assert Verdict((good, Finding("c", "warn", "")), {}).ok
    assert not Verdict((good, bad), {}).ok
    assert not Verdict((), {}).ok


def test_the_run_is_of_no_project_and_stands_in_line() -> None:
    made = plan(Host("box"), Wish(2, "v2.7"))
    assert made.files.count == 0
    assert made.job["resources"]["gpus"] == 2
    assert made.job["base"]["name"] == "v2.7"
    assert made.job["max_duration"] == 900.0
    assert services.command(made.job, "/ro") == ["python", "/ro/serve/gpucheck_service.py"]
    assert services.tools({**made.job, "image": "nvcr.io/x", "host": {"runtime": "docker"}}) == []
