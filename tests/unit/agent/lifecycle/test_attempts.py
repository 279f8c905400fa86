"""One attempt after the other, without an engine: real agent processes, real ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal


def test_attempts_in_the_journal(tmp_path: Path) -> None:
    run = RunPaths(str(tmp_path))
    journal.record(run, words.RUNNING, boot_id="b1")
    assert journal.record_end(run, words.FAILED, "exit", again=True, exit_code=3)
    state = journal.fold(run)
    assert (state.live, state.between, state.state, state.waiting) == (True, True, words.QUEUED, "attempt 2")
    journal.record(run, "attempt", number=2, why="retry", checkpoint=None)
    state = journal.fold(run)
    assert (state.attempt, state.between, state.exit_code, state.boot_id) == (2, False, None, None)
    assert journal.record_end(run, words.SUCCEEDED, "exit", exit_code=0)
    assert not journal.record_end(run, words.LOST, "reboot"), "the first end of an attempt wins"
    assert journal.fold(run).earlier[0]["exit_code"] == 3


@pytest.mark.parametrize(("why", "stops"), [("retry", True), ("resume", False)])
def test_stop_that_comes_while_the_next_attempt_is_made_ready_is_not_forgotten(
    tmp_path: Path, why: str, stops: bool
) -> None:
    run = RunPaths(str(tmp_path))
    journal.record(run, words.RUNNING, boot_id="b1")
    journal.record_end(run, words.FAILED, "exit", again=True, exit_code=3)
    journal.record(run, "stop", grace=30.0)
    journal.record(run, "attempt", number=2, why=why, checkpoint=None)
    assert (journal.fold(run).stop is not None) is stops


def test_end_of_an_attempt_that_was_not_journalled_counts(tmp_path: Path) -> None:
    """Killed between exit.json and the event."""
    run = RunPaths(str(tmp_path))
    journal.record(run, words.RUNNING)
    journal.record_end(run, words.FAILED, "exit", again=True, exit_code=3)
    events = Path(run.events)
    events.write_bytes(events.read_bytes().splitlines(keepends=True)[0])
    state = journal.fold(run)
    assert (state.between, state.exit_code) == (True, 3)
    journal.repair_end(run)
    journal.repair_end(run)
    assert [event["event"] for event in journal.read(run)] == [words.RUNNING, "ended"]
    assert journal.fold(run) == state
