"""Several gpurun processes on one laptop change its state at the same time, and lose nothing of each other's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gpurun.config import hosts
from gpurun.store import checkpoint_store, pending_submits, run_store
from tests.support.part import part

pytestmark = pytest.mark.usefixtures("home")

RUN = "train-7f3k"
PROCESSES, CHANGES = 4, 25
EACH = [(number, turn) for number in range(PROCESSES) for turn in range(CHANGES)]


def together(do: Callable[[int, int], None]) -> None:
    """Each of the processes makes its changes, as fast as it can."""

    def changes(number: int) -> None:
        for turn in range(CHANGES):
            do(number, turn)

    context = multiprocessing.get_context("fork")
    started = [context.Process(target=changes, args=(number,)) for number in range(PROCESSES)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * PROCESSES


@pytest.fixture
def _known(home: Path) -> None:
    record = {"id": RUN, "name": "train", "project": "vision", "created": 1.0, "state": "running", "host_id": "h1"}
    run_store.update([part(record)], "box")


@pytest.mark.usefixtures("_known")
def test_index_changed_by_four_processes_keeps_every_change() -> None:
    together(lambda number, turn: run_store.note_left(RUN, f"host-{number}-{turn}", fetched=False))
    entry = run_store.find(RUN)
    assert entry is not None
    assert set(entry.left_on) == {f"host-{number}-{turn}" for number, turn in EACH}


@pytest.mark.usefixtures("_known")
def test_index_updated_from_a_host_keeps_what_another_process_notes() -> None:
    def do(number: int, turn: int) -> None:
        if number == 0:
            run_store.change(RUN, lambda entry: replace(entry, left_on={**entry.left_on, f"host-{turn}": False}))
        else:
            found = run_store.find(RUN)
            assert found is not None
            assert found.record is not None
            run_store.update([{**found.record, "log_bytes": turn * 10 + number}], "box")

    together(do)
    entry = run_store.find(RUN)
    assert entry is not None
    assert set(entry.left_on) == {f"host-{turn}" for turn in range(CHANGES)}


@pytest.mark.usefixtures("_known")
def test_mirror_updated_by_four_processes_keeps_every_checkpoint() -> None:
    def do(number: int, turn: int) -> None:
        saved = {"path": f"{turn}.ckpt", "sha256": f"{turn:064x}", "size": 1, "complete": True}
        piece = {"host_id": f"h{number}", "from": turn, "to": turn + 1, "lines": [saved]}
        checkpoint_store.update({"ledgers": {RUN: piece}}, f"box-{number}")

    together(do)
    assert {(one["host"], one["path"]) for one in checkpoint_store.there(RUN)} == {
        (f"box-{number}", f"{turn}.ckpt") for number, turn in EACH
    }


def test_hosts_added_by_four_processes_are_all_there() -> None:
    together(lambda number, turn: hosts.add(f"box-{number}", {"root": f"/disk{turn}"}))
    assert {name: host.root for name, host in hosts.read().hosts.items()} == {
        f"box-{number}": f"/disk{CHANGES - 1}" for number in range(PROCESSES)
    }


def test_claim_that_another_submit_looks_at_is_taken_over_all_the_same(tmp_path: Path) -> None:
    """To look at an abandoned claim is to hold its lock; who repeats that submit must not take it for a live one."""
    job = {"id": "train-aaaa", "name": "train", "created": 1.0, "token": "t" * 16, "fetch_hint": "gpurun fetch"}
    pending_submits.take(part(job), part({}), "box", now={"t": 2.0}).release()

    def do(number: int, turn: int) -> None:
        if number:
            other = {**job, "id": f"train-{number:02}{turn:02}", "name": f"{number}-{turn}"}
            pending_submits.take(part(other), part({}), "box", now={"t": 2.0}).settle()
        else:
            claim = pending_submits.take(part({**job, "id": f"train-zz{turn:02}"}), part({}), "box", now={"t": 2.0})
            (tmp_path / f"{turn}").write_text(claim.job["id"])
            claim.release()

    together(do)
    assert {file.read_text() for file in tmp_path.iterdir() if file.name.isdigit()} == {"train-aaaa"}
