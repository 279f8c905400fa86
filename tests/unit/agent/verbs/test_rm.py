"""What `rm` refuses, what it holds meanwhile, and what it says of the bytes; and the stamp by which it knows a change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import locks
from gpurun.agent.lifecycle import finish, unfetched
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal
from gpurun.agent.verbs import rm
from tests.unit.agent.conftest import AgentHost, eventually
from tests.unit.agent.lifecycle.test_attempts import until
from tests.unit.agent.run_folder import RUN, RunFolder

WRITES = "open('weights.ckpt', 'wb').write(b'w' * 1000)\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path / "locks"))
    return RunFolder(tmp_path / "host")


def stamp(run: RunFolder) -> str | None:
    return unfetched.stamp_of(run.paths, {})


@contextmanager
def undeletable(folder: Path) -> Iterator[None]:
    """Keep what is in `folder` from being removed, by whatever stops this user."""
    if os.getuid() == 0:
        subprocess.run(["chattr", "+i", folder], check=True)
    else:
        folder.chmod(0o500)
    try:
        yield
    finally:
        moved = folder if folder.exists() else next(folder.parents[2].glob(f".gone-*/workspace/{folder.name}"))
        if os.getuid() == 0:
            subprocess.run(["chattr", "-i", moved], check=True)
        else:
            moved.chmod(0o700)


def ended(agent: AgentHost, **changes: Any) -> RunPaths:
    run = agent.submit(WRITES, **changes)
    agent.wait(run)
    return run


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


def test_rm_with_the_stamp_of_before_a_change_is_refused(agent: AgentHost) -> None:
    one, two = ended(agent), ended(agent)
    held = agent.ask("unfetched", runs=[one.id, two.id])["held"]
    stamps = {run: told["stamp"] for run, told in held.items()}
    Path(two.workspace, "evaluation.csv").write_text("5 hours")
    error = agent.refused("rm", runs=[one.id, two.id], stamps=stamps)
    assert error["code"] == "changed_since"
    assert Path(one.workspace, "weights.ckpt").exists(), "of several runs nothing is removed"
    stamps = {run: told["stamp"] for run, told in agent.ask("unfetched", runs=[one.id, two.id])["held"].items()}
    answer = agent.ask("rm", runs=[one.id, two.id], stamps=stamps)
    assert (answer["removed"], answer["left"]) == ([one.id, two.id], [])
    assert not Path(one.root).exists()


def test_rm_and_leave_while_a_shell_is_open_in_the_run_are_refused(agent: AgentHost) -> None:
    run, other = ended(agent), ended(agent)
    asked = agent.ask("shell", run=run.id, command=["sleep", "60"])
    shell = subprocess.Popen(asked["argv"], env=agent.env)
    try:
        eventually(
            lambda: agent.ask("unfetched", runs=[run.id])["held"][run.id]["shells"] == [f"kill -HUP {shell.pid}"]
        )
        assert agent.ask("unfetched", runs=[run.id, other.id])["held"][other.id]["shells"] == []
        refused = agent.refused("rm", runs=[other.id, run.id])
        assert (refused["code"], refused["what"]) == ("live", f"a shell is open in the run {run.id}")
        assert f"kill -HUP {shell.pid}" in refused["next"]
        assert agent.refused("leave", wipe=True, runs=[run.id, other.id])["what"] == refused["what"]
        assert Path(other.workspace, "weights.ckpt").exists(), "of several runs nothing is removed"
    finally:
        os.kill(shell.pid, signal.SIGHUP)
        shell.wait()
    assert agent.ask("rm", runs=[other.id, run.id])["removed"] == [other.id, run.id]


def test_rm_while_a_hook_runs_is_refused_and_the_run_counts_as_live(agent: AgentHost) -> None:
    run = ended(agent, on_end="until test -e done; do sleep 0.05; done; echo report >report.html")
    refused = agent.refused("rm", runs=[run.id])
    assert (refused["code"], f"gpurun fetch --watch {run.id}" in refused["next"]) == ("live", True)
    listed = agent.ask("outputs", run=run.id)
    assert (listed["live"], listed["stamp"]) == (True, None)
    assert agent.ask("unfetched", runs=[run.id])["held"][run.id]["live"] is True
    Path(run.workspace, "done").touch()
    until(lambda: not agent.ask("outputs", run=run.id)["live"])
    assert "report.html" in [file["as"] for file in agent.ask("outputs", run=run.id)["files"]]
    assert agent.ask("rm", runs=[run.id])["removed"] == [run.id]


def test_rm_while_a_hook_runs_whose_locks_were_swept_away_is_refused(agent: AgentHost) -> None:
    run = ended(agent, on_end="echo >begun; until test -e done; do sleep 0.05; done; echo report >report.html")
    until(Path(run.workspace, "begun").exists)
    shutil.rmtree(agent.root / "locks" / f"gpurun-{os.getuid()}")
    assert agent.refused("rm", runs=[run.id])["code"] == "live"
    Path(run.workspace, "done").touch()
    until(lambda: not agent.ask("outputs", run=run.id)["live"])
    assert agent.ask("rm", runs=[run.id])["removed"] == [run.id]


def test_rm_of_what_cannot_be_removed_is_told_and_not_counted_as_freed(agent: AgentHost) -> None:
    run = ended(agent)
    folder = Path(run.workspace, "roots")
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(3_000_000))
    with undeletable(folder):
        answer = agent.ask("rm", runs=[run.id])
        assert answer["freed"] < 1_000_000
        (left,) = answer["left"]
        assert (left["run"], left["path"]) == (run.id, os.path.join(agent.paths.runs, ".gone-" + run.id))
        assert left["bytes"] >= 3_000_000
        assert "not permitted" in left["why"] or "denied" in left["why"]
        other = ended(agent)
        assert [one["run"] for one in agent.ask("rm", runs=[other.id])["left"]] == [run.id], "it is told again"
    assert agent.ask("rm", runs=[])["left"] == []
    assert not Path(left["path"]).exists()


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
    held = unfetched.measure(run.paths, {})
    assert (held.files, held.container) == (0, False)
    run.write("log", b"trained", to="out")
    assert unfetched.measure(run.paths, {}).files == 1


def test_rm_that_starts_a_supervisor_gives_it_no_lock_of_another_run(agent: AgentHost) -> None:
    ended, live = agent.submit("print('done')"), agent.submit("import time; print('up', flush=True); time.sleep(60)")
    agent.wait(ended)
    agent.until_running(live, b"up")
    for pid in agent.lock_holders("run-" + live.id):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not agent.lock_holders("run-" + live.id))
    assert agent.refused("rm", runs=[ended.id, live.id], stamps={})["code"] == "live"
    assert agent.lock_holders("run-" + live.id), "a supervisor was started"
    assert agent.ask("rm", runs=[ended.id], stamps={})["removed"] == [ended.id]
