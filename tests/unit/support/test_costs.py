"""What `make test` prints at its end."""

from __future__ import annotations

from pathlib import Path

from tests.support import costs

REPORT = """<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1"
failures="1" skipped="0" tests="2324" time="24.88" timestamp="2026-11-26T20:00:00" hostname="box"/></testsuites>"""


def test_costs_has_a_line_for_each_suite_that_ran(tmp_path: Path) -> None:
    (tmp_path / "unit.xml").write_text(REPORT)
    (tmp_path / "lab.xml").write_text(
        REPORT.replace('errors="1"', 'errors="0"').replace('failures="1"', 'failures="0"')
    )
    assert costs.table([tmp_path / "unit.xml", tmp_path / "e2e.xml", tmp_path / "lab.xml"]) == [
        "unit          2324 tests     25 s, 2 failed",
        "lab           2324 tests     25 s",
    ]
