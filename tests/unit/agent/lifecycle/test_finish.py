"""What an exit means, by what else is known: success is exit code 0, no stop request, and no signal from outside."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import machine
from gpurun.agent import vocabulary as words
from gpurun.agent.lifecycle import finish
from gpurun.agent.runtimes import Presence
from gpurun.agent.state import journal
from tests.support.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, host={"runtime": "docker"})


def ended(run: RunFolder, code: int | None = 0, **told: Any) -> tuple[str, str | None, int | None]:
    finish.end_by_presence(run.paths, journal.fold(run.paths), Presence("exited", code, **told))
    state = journal.fold(run.paths)
    return state.state, state.reason, state.exit_code


def shut_down(run: RunFolder) -> float:
    return float(journal.record(run.paths, "shutdown")["t"])


def reports(run: RunFolder) -> None:
    """A plugin does."""
    Path(run.paths.progress).write_text(json.dumps({"t": 1.0, "attempt": 1, "step": 1}) + "\n")


def test_end_with_0_is_success(run: RunFolder) -> None:
    assert ended(run) == (words.SUCCEEDED, "exit", 0)


def test_end_with_0_behind_a_signal_from_outside_is_none(run: RunFolder) -> None:
    assert ended(run, signalled=True) == (words.FAILED, "signal", 0)
    assert "docker stop" in str(journal.fold(run.paths).message)


def test_end_with_0_that_nobody_saw_and_the_engine_forgot_is_not_called_success(run: RunFolder) -> None:
    assert ended(run, unseen=True) == (words.LOST, "unseen", 0)


def test_end_with_0_that_nobody_saw_of_a_training_whose_plugin_was_told_no_stop_is_success(run: RunFolder) -> None:
    reports(run)
    assert ended(run, unseen=True) == (words.SUCCEEDED, "exit", 0)


def test_end_with_0_of_a_training_whose_plugin_was_told_to_stop_by_somebody_else_is_none(run: RunFolder) -> None:
    """By `kill`, which no engine sees."""
    Path(run.paths.stopped).write_text(json.dumps({"attempt": 1, "checkpoint": "stop.ckpt", "why": "SIGTERM"}))
    assert ended(run) == (words.FAILED, "signal", 0)


def test_end_behind_a_stop_of_ours_is_stopped_whatever_else_was_sent(run: RunFolder) -> None:
    journal.record(run.paths, "stop", reason="stop", grace=5.0)
    assert ended(run, signalled=True) == (words.STOPPED, "stop", 0)


def test_end_that_a_later_start_has_overwritten_is_lost(run: RunFolder) -> None:
    assert ended(run, None, restarted=True) == (words.LOST, "restarted", None)


def test_end_whose_exit_code_the_engine_has_made_up_is_lost(run: RunFolder) -> None:
    assert ended(run, None, made_up=True) == (words.LOST, "engine", None)


@pytest.mark.parametrize("code", [0, 1, 143])
@pytest.mark.parametrize("after", [-5.0, 3.0, None])  # the engine may get its TERM before the supervisor does
def test_end_by_a_shutdown_is_lost_whatever_its_exit_code(run: RunFolder, code: int, after: float | None) -> None:
    at = shut_down(run)
    finished = None if after is None else at + after
    assert ended(run, code, finished_at=finished) == (words.LOST, "reboot", code)


@pytest.mark.parametrize(("code", "state"), [(0, words.SUCCEEDED), (3, words.FAILED)])
def test_end_long_after_a_term_to_the_supervisor_is_the_jobs_own(run: RunFolder, code: int, state: str) -> None:
    """Somebody ended the supervisor, at a logout say; the host was restarted a week later."""
    at = shut_down(run)
    assert ended(run, code, finished_at=at + finish.SHUTDOWN_LASTS + 1) == (state, "exit", code)


@pytest.fixture
def same_boot(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "same", host={"runtime": "docker"})
    journal.record(run.paths, words.RUNNING, boot_id=machine.boot_id())
    return run


def test_end_behind_a_term_to_the_supervisor_alone_is_the_jobs_own(same_boot: RunFolder) -> None:
    shut_down(same_boot)
    assert ended(same_boot, finished_at=time.time()) == (words.SUCCEEDED, "exit", 0)


def test_end_while_the_host_goes_down_is_lost_where_a_plugin_was_asked_to_save(same_boot: RunFolder) -> None:
    shut_down(same_boot)
    reports(same_boot)
    assert ended(same_boot, finished_at=time.time()) == (words.LOST, "reboot", 0)


def test_end_by_an_engine_that_stops_while_the_host_goes_down_is_lost(same_boot: RunFolder) -> None:
    shut_down(same_boot)
    assert ended(same_boot, signalled=True, finished_at=time.time()) == (words.LOST, "reboot", 0)
