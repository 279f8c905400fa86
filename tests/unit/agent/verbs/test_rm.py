"""What `rm` refuses, what it holds meanwhile, and what it says of the bytes; and the stamp by which it knows a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import locks
from gpurun.agent.lifecycle import finish, unfetched
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal
from gpurun.agent.verbs import rm
from tests.support.part import only
from tests.support.run_folder import RUN, RunFolder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path / "locks"))
    return RunFolder(tmp_path / "host")


def stamp(run: RunFolder) -> str | None:
    return unfetched.stamp_of(run.paths, only())


def test_rm_of_an_ended_run_holds_its_lock_from_the_look_to_the_removal(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.end()
    real, free = finish.disk_use, []

    def measured(folder: RunPaths) -> int:
        free.append(locks.is_free(locks.run_lock(RUN)))
        return real(folder)

    monkeypatch.setattr(finish, "disk_use", measured)
    rm.answer({"runs": [RUN]}, run.host)
    assert free == [False]
    assert locks.is_free(locks.run_lock(RUN))


def test_rm_of_a_run_that_begins_again_before_the_lock_is_taken_is_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.end()
    real = rm._lock

    def slow_lock(paths: RunPaths) -> locks.Held:
        journal.record(paths, "attempt", number=2, why="resume", checkpoint=None, ticket=None, gpus=None)
        os.unlink(paths.exit)
        return real(paths)

    monkeypatch.setattr(rm, "_lock", slow_lock)
    with pytest.raises(AgentError) as error:
        rm.answer({"runs": [RUN]}, run.host)
    assert error.value.code == "live"
    assert run.root.is_dir()


@pytest.mark.parametrize("change", ["added", "rewritten", "removed", "outside", "hook output"])
def test_stamp_of_a_run_that_was_written_to_is_another(run: RunFolder, change: str) -> None:
    run.submit("train.py", b"code")
    weights = run.write("weights.ckpt", b"1" * 10)
    run.end()
    before = stamp(run)
    if change == "added":
        run.write("deep/evaluation.csv")
    elif change == "rewritten":
        run.write("weights.ckpt", b"2" * 10)  # of the same size and mtime
    elif change == "removed":
        weights.unlink()
    elif change == "outside":
        run.write("root/x.ckpt", to="outside")
    else:
        (run.root / "hooks.log").write_text("exported")
    assert stamp(run) not in (None, before)


def test_stamp_of_a_run_whose_own_record_grows_stays(run: RunFolder) -> None:
    run.write("weights.ckpt")
    assert stamp(run) is None, "it lives, and may write"
    run.end()
    before = stamp(run)
    journal.record(run.paths, "note", message="on_end failed")
    (run.root / "environment.json").write_text("{}")
    assert stamp(run) == before is not None


def test_run_that_wrote_nothing_holds_nothing(run: RunFolder) -> None:
    run.submit("train.py", b"code")
    run.write("log", b"", to="out")
    run.end()
    held = unfetched.measure(run.paths, only())
    assert (held.files, held.container) == (0, False)
    run.write("log", b"trained", to="out")
    assert unfetched.measure(run.paths, only()).files == 1
