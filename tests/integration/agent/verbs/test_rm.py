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

from gpurun.agent.paths import RunPaths
from tests.support.agent_host import AgentHost
from tests.support.waiting import eventually
from tests.unit.agent.verbs.test_rm import run

__all__ = ["run"]

WRITES = "open('weights.ckpt', 'wb').write(b'w' * 1000)\n"


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
    eventually(lambda: not agent.ask("outputs", run=run.id)["live"])
    assert "report.html" in [file["as"] for file in agent.ask("outputs", run=run.id)["files"]]
    assert agent.ask("rm", runs=[run.id])["removed"] == [run.id]


def test_rm_while_a_hook_runs_whose_locks_were_swept_away_is_refused(agent: AgentHost) -> None:
    run = ended(agent, on_end="echo >begun; until test -e done; do sleep 0.05; done; echo report >report.html")
    eventually(Path(run.workspace, "begun").exists)
    shutil.rmtree(agent.root / "locks" / f"gpurun-{os.getuid()}")
    assert agent.refused("rm", runs=[run.id])["code"] == "live"
    Path(run.workspace, "done").touch()
    eventually(lambda: not agent.ask("outputs", run=run.id)["live"])
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


def test_rm_that_starts_a_supervisor_gives_it_no_lock_of_another_run(agent: AgentHost) -> None:
    ended, live = agent.submit("print('done')"), agent.submit("import time; print('up', flush=True); time.sleep(600)")
    agent.wait(ended)
    agent.until_running(live, b"up")
    for pid in agent.lock_holders("run-" + live.id):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not agent.lock_holders("run-" + live.id))
    assert agent.refused("rm", runs=[ended.id, live.id], stamps={})["code"] == "live"
    assert agent.lock_holders("run-" + live.id), "a supervisor was started"
    assert agent.ask("rm", runs=[ended.id], stamps={})["removed"] == [ended.id]
