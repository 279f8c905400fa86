"""`ps` in pages: a host with thousands of old runs answers all the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.paths import HostPaths
from gpurun.agent.verbs import ps
from tests.support.part import only
from tests.support.run_folder import RunFolder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostPaths:
    """Two live runs and five that have ended, the oldest first."""
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path / "locks"))
    (tmp_path / "locks").mkdir()
    for at in range(7):
        run = RunFolder(tmp_path / "root", f"train-{at:04}", created=float(at))
        os.utime(run.paths.job, (1000 + at, 1000 + at))
        if at not in (0, 5):
            run.end()
    return HostPaths(str(tmp_path / "root"))


def ask(host: HostPaths, **request: Any) -> tuple[list[str], Any]:
    answer = ps.answer(only(all=True, **request), host)
    return [record["id"][-1] for record in answer["runs"]], answer["more"]


def test_ps_without_a_limit_tells_of_all_runs(host: HostPaths) -> None:
    assert ask(host) == (list("0123456"), None)


def test_first_page_has_all_live_runs_and_the_newest_that_ended(host: HostPaths) -> None:
    ids, more = ask(host, limit=2)
    assert ids == ["0", "4", "5", "6"]
    assert more is not None


def test_pages_tell_of_each_run_once(host: HostPaths) -> None:
    found, after = [], None
    while True:
        ids, after = ask(host, limit=2, after=after)
        found += ids
        if after is None:
            break
    assert sorted(found) == list("0123456")


def test_run_that_ends_between_two_pages_is_told(host: HostPaths) -> None:
    _, more = ask(host, limit=2)
    RunFolder(Path(host.root), "train-9999").end()
    assert ask(host, limit=9, after=more) == (["1", "2", "3"], None)
