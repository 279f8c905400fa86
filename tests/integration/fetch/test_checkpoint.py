"""One checkpoint, by the ledger of a run on a real SSH host: while it lives, and when it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.verbs import checkpoint as verb
from gpurun.errors import GpurunError, HostError, UsageError
from gpurun.events import Doing, Event, Report, ignore
from gpurun.fetch.checkpoint import _item, fetch_checkpoint, fetch_checkpoint_as
from gpurun.fetch.destination import opened
from gpurun.store import checkpoint_store
from gpurun.sync import rsync
from gpurun.sync.retry import run_with_retries
from tests.integration.fetch.conftest import FetchedRun
from tests.support.part import part
from tests.unit.agent.state.test_checkpoints import note, save

GOOD, NEW = b"good weights", b"newer weight"
JUDGED: Any = {"monitor": "val_loss", "mode": "min", "value": 0.25, "epoch": 3}


def fetch(run: FetchedRun, which: str, report: Report = ignore) -> Any:
    return fetch_checkpoint(run.wire, run.id, which, run.to, report=report)


def refused(run: FetchedRun, which: str) -> GpurunError:
    with pytest.raises(GpurunError) as caught:
        fetch(run, which)
    return caught.value


def test_best_and_last_of_a_live_run(run: FetchedRun) -> None:
    save(run.job, "checkpoints/a.ckpt", GOOD, step=10, best=True, **JUDGED)
    save(run.job, "checkpoints/last.ckpt", NEW, step=20, attempt=2)
    best, last = fetch(run, "best"), fetch(run, "last")
    assert run.files() == {"checkpoints/a.ckpt": GOOD, "checkpoints/last.ckpt": NEW}
    assert (best.file, best.unchanged) == (run.to / "checkpoints/a.ckpt", False)
    assert {key: best.entry[key] for key in JUDGED} == JUDGED
    assert (last.entry["step"], last.entry["attempt"]) == (20, 2)
    assert [entry["path"] for entry in checkpoint_store.there(run.id)] == [
        "checkpoints/a.ckpt",
        "checkpoints/last.ckpt",
    ]


def test_what_is_here_is_not_sent_again_by_either_fetch(run: FetchedRun) -> None:
    save(run.job, "a.ckpt", GOOD, best=True)
    fetch(run, "best")
    assert fetch(run, "best").unchanged
    fetched = run.fetch(only=["a.ckpt"])
    assert (fetched.placed, fetched.unchanged) == ([], 1)


def test_one_that_is_written_anew_while_it_comes_is_taken_when_the_ledger_tells_of_it(run: FetchedRun) -> None:
    note(run.job, "last.ckpt", GOOD, step=10)
    run.job.write("last.ckpt", NEW)  # of the same size: the ledger lags behind
    again = Doing("it was written anew meanwhile; trying again")
    heard: list[Event] = []

    def report(event: Event) -> None:
        heard.append(event)
        if event == again:
            note(run.job, "last.ckpt", NEW, step=20)

    assert fetch(run, "last", report).entry["step"] == 20
    assert (run.files(), heard.count(again)) == ({"last.ckpt": NEW}, 1)


def test_one_that_is_cut_short_while_it_is_read_is_tried_again(
    run: FetchedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run.job, "last.ckpt", GOOD)
    failures = [rsync.RsyncError(rsync.PARTIAL, "read errors\nrsync error", "demo")]

    def fail_once(*args: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        run_with_retries(*args, **options)

    monkeypatch.setattr("gpurun.fetch.checkpoint.run_with_retries", fail_once)
    fetch(run, "last")
    assert (run.files(), failures) == ({"last.ckpt": GOOD}, [])


def test_another_content_than_the_ledger_tells_never_arrives(run: FetchedRun) -> None:
    save(run.job, "last.ckpt", GOOD, step=10)
    fetch(run, "last")
    run.job.write("last.ckpt", NEW)
    run.job.end()
    error = refused(run, "last")
    assert (error.exit_code, error.code) == (125, "not_as_told")
    assert "last.ckpt of" in error.what
    assert "--only 'last.ckpt'" in error.next_step
    assert run.files() == {"last.ckpt": GOOD}, "the whole one that came before stays"


def test_agent_waits_for_the_ledger_of_a_live_run(run: FetchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    note(run.job, "last.ckpt", GOOD, step=20)
    save(run.job, "a.ckpt", GOOD, step=10)
    run.job.write("last.ckpt", b"half")
    monkeypatch.setattr("gpurun.agent.verbs.checkpoint.time.sleep", lambda _: run.job.write("last.ckpt", GOOD))
    chosen = verb._choose(run.job.paths, "last", live=True)
    assert chosen is not None
    assert chosen["path"] == "last.ckpt"
    run.job.write("last.ckpt", b"half")
    chosen = verb._choose(run.job.paths, "last", live=False)
    assert chosen is not None
    assert chosen["path"] == "a.ckpt", "an ended run's file does not get better"


def test_there_is_none(run: FetchedRun) -> None:
    error = refused(run, "best")
    assert (error.exit_code, error.what) == (1, f"{run.id} has saved no checkpoint yet")
    save(run.job, "a.ckpt", GOOD)
    error = refused(run, "best")
    assert (error.exit_code, error.next_step) == (1, f"gpurun fetch --last {run.id}")
    assert "nothing was monitored" in error.what
    (run.job.root / "workspace/a.ckpt").unlink()
    run.job.end()
    assert refused(run, "last").what == f"{run.id} has no checkpoint any more"


def test_a_run_without_a_ledger_that_has_ended(run: FetchedRun) -> None:
    run.job.end()
    assert "does not use Lightning" in refused(run, "last").what


def test_one_outside_the_workspace(run: FetchedRun, tmp_path: Path) -> None:
    elsewhere = tmp_path / "scratch" / "b.ckpt"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(GOOD)
    note(run.job, str(elsewhere), GOOD)
    assert fetch(run, "last").file == run.to / f"outside{elsewhere}"


def test_a_link_to_another_checkpoint_is_that_one(run: FetchedRun) -> None:
    """As `save_last="link"` makes it. A fetch of everything makes the link, and finds no file in its place."""
    save(run.job, "checkpoints/a.ckpt", GOOD, step=10)
    (run.job.root / "workspace/checkpoints/last.ckpt").symlink_to("a.ckpt")
    note(run.job, "checkpoints/last.ckpt", GOOD, step=10, t=200.0)
    assert fetch(run, "last").file == run.to / "checkpoints/a.ckpt"
    assert run.fetch().whole
    assert (run.to / "checkpoints/last.ckpt").readlink() == Path("a.ckpt")


def test_one_that_came_from_another_host_lies_beside_the_record(run: FetchedRun) -> None:
    save(run.job, ".gpurun/resume/c.ckpt", GOOD)
    assert fetch(run, "last").file == run.to / "_gpurun/resume/c.ckpt"


def test_a_file_that_is_not_ours_is_left(run: FetchedRun) -> None:
    save(run.job, "a.ckpt", GOOD)
    run.to.mkdir(parents=True)
    (run.to / "a.ckpt").write_bytes(b"mine")
    assert fetch(run, "last").file == run.to / f"a.{run.id}.ckpt"
    assert (run.to / "a.ckpt").read_bytes() == b"mine"


def test_to_a_path_of_ones_own(run: FetchedRun, tmp_path: Path) -> None:
    save(run.job, "checkpoints/a.ckpt", GOOD, step=10)
    mine = tmp_path / "mine.ckpt"

    def ask(*, replace: bool = False) -> Any:
        return fetch_checkpoint_as(run.wire, run.id, "last", mine, replace=replace, report=ignore)

    assert not ask().unchanged
    assert mine.read_bytes() == GOOD
    assert ask().unchanged
    save(run.job, "checkpoints/b.ckpt", NEW, step=20)
    with pytest.raises(UsageError, match="is there already"):
        ask()
    assert mine.read_bytes() == GOOD
    ask(replace=True)
    assert mine.read_bytes() == NEW
    assert not [path for path in tmp_path.iterdir() if "gpurun" in path.name]


def test_to_a_path_of_ones_own_is_tidied_up_before_another_gpurun_may_begin(
    run: FetchedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run.job, "checkpoints/a.ckpt", GOOD, step=10)
    beside = tmp_path / ".mine.ckpt.gpurun"
    refused = []

    def begin_another(folder: str) -> None:
        if folder == str(tmp_path):  # the checkpoint has its place, and what is beside it is still there
            with pytest.raises(GpurunError, match="another gpurun") as caught, opened(beside, run.id):
                raise AssertionError("two in one folder, which the first one removes")
            refused.append(caught.value)

    monkeypatch.setattr("gpurun.fetch.checkpoint.sync_folder", begin_another)
    fetch_checkpoint_as(run.wire, run.id, "last", tmp_path / "mine.ckpt", replace=False, report=ignore)
    assert (len(refused), beside.exists()) == (1, False)


@pytest.mark.parametrize(
    "lie",
    [
        {"as": "../x"},
        {"as": "/etc/x"},
        {"as": ".gpurun/fetch.json"},
        {"name": "../x"},
        {"name": "a/b"},
        {"folder": "relative"},
        {"size": "1"},
        {"sha256": None},
    ],
)
def test_a_host_that_lies_is_told_so(lie: Any) -> None:
    told = {"name": "x", "as": "x", "folder": "/f", "sha256": "0", "size": 1, "mtime_ns": 1, "ctime_ns": 1, "inode": 1}
    assert _item(part(told), "box").to == "x"
    with pytest.raises(HostError):
        _item(part({**told, **lie}), "box")
