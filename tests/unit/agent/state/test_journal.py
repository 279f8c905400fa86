from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.files import read_json
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(str(tmp_path))


def test_state_is_a_fold_over_the_events(run: RunPaths) -> None:
    journal.record(run, words.CREATED)
    journal.record(run, words.SYNCING)
    journal.record(run, words.QUEUED, ticket=7)
    journal.record(run, words.PREPARING)
    journal.record(run, words.QUEUED, waiting="1 GPU (0 of 4 free)")
    assert journal.fold(run).waiting == "1 GPU (0 of 4 free)"
    journal.record(run, "leased", gpus=[{"uuid": "GPU-1", "index": 0, "name": "A100"}])
    journal.record(run, words.RUNNING, boot_id="b1")
    state = journal.fold(run)
    assert (state.state, state.ticket, state.waiting, state.boot_id) == (words.RUNNING, 7, None, "b1")
    assert state.gpus[0]["uuid"] == "GPU-1"
    assert state.live


def test_first_end_wins(run: RunPaths) -> None:
    assert journal.record_end(run, words.SUCCEEDED, "exit", exit_code=0)
    assert not journal.record_end(run, words.LOST, "reboot")
    journal.record(run, words.RUNNING)
    state = journal.fold(run)
    assert (state.state, state.reason, state.exit_code) == (words.SUCCEEDED, "exit", 0)
    ended = read_json(run.exit)
    assert ended is not None
    assert ended["state"] == words.SUCCEEDED


def test_end_written_but_not_journalled_counts(run: RunPaths) -> None:
    """Killed between exit.json and the event."""
    journal.record(run, words.RUNNING)
    journal.record_end(run, words.FAILED, "exit", exit_code=3)
    events = Path(run.events)
    events.write_bytes(events.read_bytes().splitlines(keepends=True)[0])
    assert journal.fold(run).exit_code == 3
    assert not journal.record_end(run, words.LOST, "reboot")


@pytest.mark.parametrize("torn", [b'{"t": 1, "ev', b"\xff\x00", b'{"t": 1, "event": "running"}'])
def test_torn_last_line_is_left_out_and_healed(run: RunPaths, torn: bytes) -> None:
    journal.record(run, words.CREATED)
    with open(run.events, "ab") as file:
        file.write(torn)
    assert journal.fold(run).state == words.CREATED
    journal.record(run, words.SYNCING)
    assert [event["event"] for event in journal.read(run)] == [words.CREATED, words.SYNCING]


@pytest.mark.parametrize("bad", [b"\0\0\0\0", b'{"t": 1, "ev', b'{"t": 1}', b"[]"])
def test_line_that_is_no_event_is_named_and_stays(run: RunPaths, bad: bytes) -> None:
    journal.record(run, words.QUEUED)
    with open(run.events, "ab") as file:
        file.write(bad + b"\n\n")
    journal.record(run, words.PREPARING)
    state = journal.fold(run)
    assert state.state == words.PREPARING
    assert state.damaged == f"line 2 of {run.events} is not an event"
    journal.record_end(run, words.FAILED, "start")
    journal.repair_end(run)
    assert Path(run.events).read_bytes().splitlines()[1] == bad
