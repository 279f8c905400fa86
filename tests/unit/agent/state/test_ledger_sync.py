"""The part of a ledger that a laptop does not have yet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import machine
from gpurun.agent.state import ledger_sync
from tests.support.run_folder import RUN, RunFolder
from tests.unit.agent.state.test_checkpoints import add, note


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def ask(run: RunFolder, read: int = 0) -> Any:
    known = {RUN: {machine.host_id(run.host): read, "another": 7}} if read else {}
    return ledger_sync.ledgers({"ledgers": known}, run.host, [run.paths]).get(RUN)


def test_nobody_asked(run: RunFolder) -> None:
    note(run, "a.ckpt")
    assert ledger_sync.ledgers({}, run.host, [run.paths]) == {}


def test_only_what_is_new(run: RunFolder) -> None:
    assert ask(run) is None
    note(run, "a.ckpt", step=10)
    first = ask(run)
    assert first is not None
    assert (first["from"], first["to"]) == (0, os.path.getsize(run.paths.ledger))
    assert ask(run, first["to"]) is None
    add(run, b'{"path": "a.ckpt", "removed": true}\n{"path": "b')
    second = ask(run, first["to"])
    assert second is not None
    assert second["lines"] == [{"path": "a.ckpt", "removed": True}]
    assert second["to"] == os.path.getsize(run.paths.ledger) - len(b'{"path": "b')


def test_a_ledger_that_was_begun_anew_is_told_from_its_beginning(run: RunFolder) -> None:
    note(run, "a.ckpt")
    told = ask(run, 10_000)
    assert told is not None
    assert (told["from"], [entry["path"] for entry in told["lines"]]) == (0, ["a.ckpt"])


def test_a_long_one_comes_in_parts(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_sync, "MOST", 1000)
    for number in range(20):
        note(run, f"{number}.ckpt")
    read, paths = 0, list[str]()
    while (piece := ask(run, read)) is not None:
        assert piece["from"] == read
        assert piece["to"] - piece["from"] <= 1000
        paths += [entry["path"] for entry in piece["lines"]]
        read = piece["to"]
    assert paths == [f"{number}.ckpt" for number in range(20)]


def test_a_line_without_end_holds_nothing_up(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_sync, "MOST", 1000)
    add(run, b"x" * 2500 + b"\n")
    note(run, "a.ckpt")
    read, paths = 0, list[str]()
    while (piece := ask(run, read)) is not None:
        paths += [entry["path"] for entry in piece["lines"]]
        read = piece["to"]
    assert paths == ["a.ckpt"]


def test_a_link_in_its_place_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "other").write_text('{"path": "x"}\n')
    os.symlink(tmp_path / "other", run.paths.ledger)
    assert ask(run) is None


def test_ledgers_of_many_runs_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_sync, "MOST_IN_ALL", 100)
    runs = [RunFolder(tmp_path, f"train-000{at}") for at in range(3)]
    for one in runs:
        note(one, "a.ckpt", step=10)
    known: Any = {}
    for _ in range(3):
        told = ledger_sync.ledgers({"ledgers": known}, runs[0].host, [one.paths for one in runs])
        assert len(told) == 1
        known.update({run: {piece["host_id"]: piece["to"]} for run, piece in told.items()})
    assert set(known) == {one.paths.id for one in runs}
