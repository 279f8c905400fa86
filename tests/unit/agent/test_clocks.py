"""Durations on a host whose clock is set meanwhile."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import clocks
from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.agent.schema.run import Mark
from gpurun.agent.state import checkpoints, journal
from tests.support.run_folder import RunFolder

YEAR = 365 * 86400.0


def test_between_of_one_boot_is_the_time_since_the_boot() -> None:
    earlier: Mark = {"t": 9e9, "up": 10.0, "boot": "b"}
    later: Mark = {"t": 1.0, "up": 25.0, "boot": "b"}
    assert clocks.between(earlier, later) == 15.0


@pytest.mark.parametrize(
    "earlier",
    [{"t": 1.0}, {"t": 1.0, "up": 1.0, "boot": "other"}, {"t": 1.0, "up": 99.0, "boot": "b"}, {"up": "1", "boot": "b"}],
)
def test_between_of_two_boots_or_without_marks_is_unknown(earlier: Any) -> None:
    assert clocks.between(earlier, {"t": 5.0, "up": 25.0, "boot": "b"}) is None


def test_since_a_mark_of_another_boot_is_by_the_clock_and_never_negative() -> None:
    now = time.time()
    assert clocks.since({"t": now + 1000, "up": 1.0, "boot": "other"}) == 0.0
    assert clocks.since({"t": now - 1000, "up": 1.0, "boot": "other"}) >= 1000.0


def test_replay_spent_is_what_the_end_says_that_the_job_ran() -> None:
    state = journal.replay(
        [
            {"t": 1.0, "event": "running", "boot_id": "b"},
            {"t": 9e9, "event": "ended", "state": "failed", "reason": "exit", "ran": 600.0, "again": True},
            {"t": 9e9, "event": "attempt", "number": 2, "why": "retry"},
        ]
    )
    assert state.spent == 600.0


def test_replay_old_journal_over_which_the_clock_was_set_spends_nothing() -> None:
    now = time.time()
    for ended in (now, now - 12 * YEAR):
        state = journal.replay(
            [
                {"t": now - 6 * YEAR, "event": "running", "boot_id": "b"},
                {"t": ended, "event": "ended", "state": "failed", "reason": "exit", "again": True},
                {"t": ended, "event": "attempt", "number": 2, "why": "retry"},
            ]
        )
        assert state.spent == 0.0


def test_record_end_in_another_boot_counts_what_was_seen_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The days for which a host was off are none of the job's."""
    boot = tmp_path / "boot"
    monkeypatch.setenv("GPURUN_BOOT_ID_FILE", str(boot))
    boot.write_text("one")
    run = RunPaths(str(tmp_path))
    journal.record(run, words.RUNNING, boot_id="one")
    start = journal.fold(run).running
    Path(run.usage).write_text('{"bytes": 1, "t": 1, "up": %f, "boot": "one"}' % (start["up"] + 450))
    boot.write_text("two")
    journal.record_end(run, words.LOST, "reboot")
    assert journal.fold(run).ran == pytest.approx(450, abs=1)


def test_record_end_of_a_job_that_an_earlier_gpurun_started_counts_its_time_by_the_clock(tmp_path: Path) -> None:
    run, at = RunPaths(str(tmp_path / "runs/train-0000")), time.time()
    os.makedirs(run.root)
    Path(run.events).write_text(json.dumps({"t": at - 36_000, "event": "running", "boot_id": "b"}) + "\n")
    assert journal.record_end(run, words.FAILED, "exit", again=True, exit_code=1)
    assert journal.fold(run).ran == pytest.approx(36_000, abs=60)


@pytest.mark.parametrize(
    ("ago", "written", "saving"),
    [
        (1.0, 0.0, True),
        (1.0, 1e6, True),  # the clock was set since
        (checkpoints.LONGEST_SAVING + 1, 0.0, False),  # as it was, behind which the file looks new
        (None, 1.0, True),  # an earlier plugin writes nothing
        (None, 1e6, False),
        (-1e6, 1.0, True),  # a job that counts from another moment
    ],
)
def test_saving_is_told_by_the_time_since_the_boot(
    tmp_path: Path, ago: float | None, written: float, saving: bool
) -> None:
    folder = RunFolder(tmp_path)
    path = Path(folder.paths.saving)
    path.write_text("" if ago is None else f"{clocks.uptime() - ago:.3f}\n")
    os.utime(path, (time.time() - written, time.time() - written))
    assert checkpoints.is_saving(folder.paths) is saving


def test_plugin_tells_since_when_it_saves_as_the_agent_counts(tmp_path: Path) -> None:
    source = Path(clocks.__file__).parent / "plugin/gpurun_lightning/saving.py"
    spec = importlib.util.spec_from_file_location("saving", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = clocks.uptime()
    saving = module.Saving(str(tmp_path / "saving"))
    saving.begin()
    assert before <= float((tmp_path / "saving").read_text()) <= clocks.uptime() + 0.001
    saving.end()
    assert not (tmp_path / "saving").exists()
