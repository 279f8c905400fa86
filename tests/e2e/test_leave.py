"""`host leave` on a host of its own, for it takes everything away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Laptop

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


@pytest.fixture
def embedded_host() -> Iterator[EmbeddedHost]:
    """In place of the one that all tests share."""
    from gpurun.demo.host import EmbeddedHost

    with tempfile.TemporaryDirectory(prefix="gpurun-host-") as directory, EmbeddedHost(Path(directory)) as host:
        yield host


def test_leaving_an_account_that_others_share_leaves_their_runs(
    laptop: Laptop, embedded_host: EmbeddedHost, tmp_path: Path
) -> None:
    bob = {**laptop.environment, "HOME": str(tmp_path), "USER": "bob", "LOGNAME": "bob"}
    colleague = replace(laptop, home=tmp_path, environment=bob)
    theirs, mine = colleague.submit("train.py", "--", "0", "0"), laptop.submit("train.py", "--", "0", "0")
    colleague.ok("wait", theirs)
    laptop.ok("wait", mine)
    done = laptop.gpurun("host", "leave", "demo")
    assert done.code == 0, done.err
    assert "1 run of bob stay on demo" in done.err
    runs = embedded_host.home / ".gpurun/runs"
    assert [path.name for path in runs.iterdir()] == [theirs]
    assert sorted(path.name for path in (laptop.project / "fetched").glob("train-*")) == [mine]
    colleague.ok("fetch", theirs)
    done = laptop.gpurun("host", "leave", "demo", "--also", "bob", "-y")
    assert done.code == 0, done.err
    assert not runs.exists()


def test_history_stays_when_run_or_host_is_gone(laptop: Laptop) -> None:
    """One run is removed by `rm`, one goes with its host: both are told of as before, by no host."""
    removed, left = laptop.submit("train.py", "--", "1", "3"), laptop.submit("train.py", "--", "2", "0")
    for run in (removed, left):
        laptop.gpurun("wait", run)
    laptop.ok("fetch", removed)
    laptop.ok("rm", removed)
    laptop.ok("host", "leave", "demo", "-y")
    laptop.environment["GPURUN_SSH"] = "false"
    for run, log, state in ((removed, "step 0\ndone\n", "failed"), (left, "step 0\nstep 1\ndone\n", "succeeded")):
        shown = " ".join(laptop.ok("status", run).split())
        assert f"{run} {state}" in shown
        assert f"{run} was removed from demo on" in shown
        assert f"its files are in fetched/{run}" in shown
        assert laptop.ok("logs", run) == log
        assert run in laptop.ok("ps", "--removed")
    results = [run["result"] for run in laptop.json("compare", removed, left)["runs"]]
    assert [(one["state"], one["exit code"]) for one in results] == [("failed", 3), ("succeeded", 0)]
    done = laptop.gpurun("fetch", left)
    assert (done.code, "was removed from demo on" in " ".join(done.err.split())) == (2, True)
