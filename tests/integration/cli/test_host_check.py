"""`gpurun host check`: its report is the result, and its exit code says whether something must be fixed."""

from __future__ import annotations

import json

import pytest

from gpurun.hosts.findings import GB
from tests.integration.cli.test_bad_answers import FakeHost, box, ok

__all__ = ["box"]


@pytest.fixture
def check(box: FakeHost) -> FakeHost:
    """A host without a fault."""
    facts = box.sound["check"]["facts"]
    disk = {"free": 500 * GB, "total": 900 * GB, "inodes": 2 * 10**7, "inodes_free": 10**7}
    box.sound["check"] = {**box.sound["check"], "facts": {**facts, "disk": disk}, "rsync": "3.4.1"}
    box.says({})
    return box


def test_host_check_report_is_on_stdout_and_ends_with_a_sum(check: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    check.run(["host", "check", "box"])
    shown = capfd.readouterr()
    *findings, last = [line for line in shown.out.splitlines() if not line.startswith(" ")]
    marks = [line.split()[0] for line in findings]
    parts = [f"{marks.count('ok')} ok"]
    if count := marks.count("warn"):
        parts.append(f"{count} warning{'s' * (count > 1)}")
    if count := marks.count("FAIL"):
        parts.append(f"{count} to fix")
    assert last == ", ".join(parts)
    assert len(findings) > 10
    assert "connection" not in shown.err


def test_host_check_of_a_host_with_a_fault_exits_with_125(check: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    without_rsync = {**check.sound["check"], "rsync": None}
    check.says({"check": ok(without_rsync)})
    assert check.run(["host", "check", "box"]) == 125
    shown = capfd.readouterr().out
    assert "FAIL  rsync there" in shown
    assert " to fix" in shown.splitlines()[-1]


def test_host_check_json_is_one_document(check: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    code = check.run(["host", "check", "box", "--json"])
    shown = capfd.readouterr()
    report = json.loads(shown.out)
    assert report["ok"] is (code == 0)
    assert {"topic", "status", "found", "mend"} == set(report["findings"][0])
    assert "connection" not in shown.err
