"""`gpurun data`, against an agent whose answers are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.cli import complete
from gpurun.config import hosts
from tests.integration.cli.test_bad_answers import FakeHost, box, ok

__all__ = ["box"]


def folders(box: FakeHost, **changes: Any) -> None:
    answer = box.sound["data_folders"]
    box.says({"data_folders": ok({**answer, "folders": [{**answer["folders"][0], **changes}]})})


def test_data_ls_is_a_table_and_names_paths_that_only_hosts_toml_knows(
    box: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    hosts.add("box", {"data": {"sets": "/x/data/sets", "scans": "/mnt/scans"}})
    folders(box, bytes=1_400_000_000, files=14_197, began=3.0, used_by=["train-7f3k"])
    assert box.run(["data", "ls", "-H", "box"]) == 0
    header, sets, scans = capfd.readouterr().out.splitlines()
    assert header.split() == ["NAME", "SIZE", "FILES", "PUSHED", "USED", "BY"]
    assert sets.split() == ["sets", "1.4", "GB", "14,197", "incomplete", "train-7f3k"]
    assert scans.split() == ["scans", "-", "-", "-", "/mnt/scans"]


def test_data_ls_json_is_one_document(box: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert box.run(["data", "ls", "-H", "box", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["host"] == "box"
    assert told["data"] == [
        {
            "name": "sets", "path": "/x/data/sets", "bytes": 1200, "files": 3, "counted": True, "began": 1.0, "pushed": 2.0,
            "used_by": [], "incomplete": False,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("line", [["sets", "-H", "box"], ["box:sets"]])
def test_data_rm_asks_first(box: FakeHost, line: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert box.run(["data", "rm", *line]) == 2
    shown = capfd.readouterr().err
    assert "Remove sets from box for good: 1.2 kB in 3 files?" in shown
    assert "next: gpurun data rm sets -H box -y" in shown
    assert box.run(["data", "rm", *line, "-y"]) == 0
    assert "removed sets from box" in capfd.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_data_rm_that_could_not_remove_all_fails(
    more: list[str], box: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = box.sound["data_folders"]
    box.says({"data_folders": ok({**answer, "left": ["/x/data/sets/theirs"]})})
    assert box.run(["data", "rm", "sets", "-H", "box", "-y", *more]) == 125
    shown = capfd.readouterr()
    assert "/x/data/sets/theirs" in shown.out + shown.err


def test_completion_of_data_rm_knows_the_names_of_a_host(home: Path) -> None:
    hosts.add("box", {"data": {"sets": "/x/data/sets", "scans": "/mnt/scans"}})
    hosts.add("spare", {"data": {"sets": "/y/data/sets"}})
    assert complete.data_of_a_host("box:s") == [("box:scans", "on box"), ("box:sets", "on box")]
    assert complete.data_of_a_host("spare:") == [("spare:sets", "on spare")]
    assert complete.data_of_a_host("se") == [("sets", "on box")]
    assert complete.data_of_a_host("nowhere:") == []


@pytest.mark.parametrize(
    ("name", "what", "step"),
    [
        ("sets", "sets is used by train-7f3k, which is live", "gpurun stop train-7f3k"),
        ("nope", "box has no data called nope", "gpurun data ls -H box"),
        ("scans", "scans is /mnt/scans, which gpurun did not make", "remove its line under [hosts.box.data]"),
    ],
)
def test_data_rm_refuses_with_the_next_command(
    box: FakeHost, name: str, what: str, step: str, capfd: pytest.CaptureFixture[str]
) -> None:
    hosts.add("box", {"data": {"scans": "/mnt/scans"}})
    folders(box, used_by=["train-7f3k"])
    assert box.run(["data", "rm", name, "-H", "box", "-y"]) == 2
    shown = capfd.readouterr().err
    assert f"error: {what}" in shown
    assert step in shown
