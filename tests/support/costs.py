"""Print what each suite cost, from the reports of `pytest --junitxml`: `python -m tests.support.costs REPORT...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree


def table(reports: Sequence[Path]) -> list[str]:
    """A line for each report that is there: the name of the suite, its tests, and its seconds."""
    lines = []
    for report in filter(Path.exists, reports):
        (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
        bad = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        failed = f", {bad} failed" if bad else ""
        lines.append(
            f"{report.stem:<12} {suite.attrib['tests']:>5} tests {float(suite.attrib['time']):>6.0f} s{failed}"
        )
    return lines


if __name__ == "__main__":
    print(*table([Path(name) for name in sys.argv[1:]]), sep="\n")
