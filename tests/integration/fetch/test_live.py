"""Fetching while the job runs, and writes."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
import zipfile

import pytest

from gpurun import fetch
from gpurun.errors import GpurunError
from gpurun.events import Doing, ignore
from gpurun.fetch import one_pass
from gpurun.fetch.arrivals import Arrivals
from gpurun.fetch.destination import opened
from gpurun.fetch.plan import Item
from tests.integration.fetch.conftest import FetchedRun
from tests.support.waiting import eventually


def a_checkpoint(size: int, seed: int) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("data.pkl", random.Random(seed).randbytes(size))
    return memory.getvalue()


def test_log_and_metrics_come_as_far_as_they_are_and_grow(run: FetchedRun) -> None:
    run.job.write("log", b"epoch 1\n", to="out", at=time.time())
    run.job.write("logs/metrics.csv", b"step,loss\n", at=time.time())
    run.fetch()
    assert run.files() == {"logs/metrics.csv": b"step,loss\n"}
    run.job.write("log", b"epoch 1\nepoch 2\n", to="out", at=time.time())
    run.fetch()
    assert run.files(record=True)["_gpurun/log"] == b"epoch 1\nepoch 2\n"


def test_a_half_written_checkpoint_never_replaces_a_whole_one(run: FetchedRun) -> None:
    whole, newer = a_checkpoint(90_000, 1), a_checkpoint(90_000, 2)
    run.job.write("last.ckpt", whole)
    time.sleep(0.2)
    run.fetch()
    run.job.write("last.ckpt", newer[:40_000], at=time.time() - 60)
    time.sleep(0.2)
    fetched = run.fetch()
    assert [(left.path, left.why) for left in fetched.writing] == [("last.ckpt", one_pass.STILL_WRITTEN)]
    assert run.files() == {"last.ckpt": whole}
    assert run.events.count(Doing("waiting for 1 files that are being written")) == 2
    run.job.write("last.ckpt", newer)
    time.sleep(0.2)
    run.fetch()
    assert run.files() == {"last.ckpt": newer}


def test_a_checkpoint_that_the_job_died_in_does_not_replace_the_whole_one(run: FetchedRun) -> None:
    whole, newer = a_checkpoint(90_000, 1), a_checkpoint(90_000, 2)
    run.job.write("last.ckpt", whole)
    time.sleep(0.2)
    run.fetch()
    run.job.write("last.ckpt", newer[:40_000])
    run.job.write("other.ckpt", newer[:30_000])
    run.job.end()
    fetched = run.fetch()
    assert run.files() == {"last.ckpt": whole, "last.ckpt.cut": newer[:40_000], "other.ckpt": newer[:30_000]}
    assert fetched.whole, "there is no more of it"
    assert {left.path: "the job ended while it wrote this" in left.why for left in fetched.left} == {
        "last.ckpt": True,
        "other.ckpt": True,
    }
    assert run.fetch().placed == []


def test_a_file_that_came_once_more_while_it_was_written_is_looked_at_again(run: FetchedRun) -> None:
    """A connection that breaks off in a later file makes rsync go through all of them again."""
    first, second = a_checkpoint(90_000, 1), a_checkpoint(90_000, 2)
    (item,) = [Item("workspace/last.ckpt", "last.ckpt", 90_000, 0, 0, 0, None, 0, grows=False, writing=None)]
    with opened(run.to, run.id) as destination, Arrivals(destination, [item]) as arrivals:
        staged = destination.staging / item.path
        staged.parent.mkdir(parents=True)
        (staged.parent / "new").write_bytes(first)
        (staged.parent / "new").rename(staged)
        eventually(lambda: arrivals.results)
        (staged.parent / "new").write_bytes(second)
        (staged.parent / "new").rename(staged)
        assert arrivals.finish()[item.path].sha256 == hashlib.sha256(second).hexdigest()


@pytest.mark.parametrize("in_place", [True, False])
def test_a_checkpoint_that_is_written_again_and_again_never_arrives_torn(run: FetchedRun, in_place: bool) -> None:
    path = run.job.write("last.ckpt", a_checkpoint(3_000_000, 0))
    versions = [a_checkpoint(3_000_000, seed) for seed in range(4)]
    good = {hashlib.sha256(version).hexdigest() for version in versions}
    over = threading.Event()

    def keep_saving() -> None:
        while not over.is_set():
            for version in versions:
                target = path if in_place else path.with_suffix(".tmp")
                target.write_bytes(version)
                if not in_place:
                    target.replace(path)
                time.sleep(0.03)

    saving = threading.Thread(target=keep_saving)
    saving.start()
    try:
        for _ in range(4):
            run.fetch()
            came = run.files().get("last.ckpt")
            assert came is None or hashlib.sha256(came).hexdigest() in good
    finally:
        over.set()
        saving.join()
    run.job.end()
    run.fetch()
    assert hashlib.sha256(run.files()["last.ckpt"]).hexdigest() in good


def test_watch_follows_a_run_to_its_end(run: FetchedRun) -> None:
    run.job.write("a", b"1")
    passes = []
    for fetched in fetch.watch(run.wire, run.id, run.to, report=ignore, every=0.1):
        passes.append(fetched.live)
        if len(passes) == 2:
            run.job.write("b", b"2")
            run.job.end()
    assert passes == [True, True, False]
    assert run.files() == {"a": b"1", "b": b"2"}


def test_watch_of_a_run_that_its_host_does_not_know_brings_what_is_there_and_ends(run: FetchedRun) -> None:
    run.job.write("a.csv", b"1")
    run.job.life.close()
    passes = fetch.watch(run.wire, run.id, run.to, report=ignore, every=0.1)
    fetched = next(passes)
    assert fetched.unknown is not None
    assert run.files() == {"a.csv": b"1"}
    with pytest.raises(GpurunError) as error:
        next(passes)
    assert error.value.next_step.startswith("gpurun stop --abandon")


def test_wait_for_a_run_that_its_host_knows_nothing_of_is_over_at_once(run: FetchedRun) -> None:
    """As on a clone of its disk: nobody there will see its end."""
    run.job.life.close()
    (answer,) = run.wire.ask("wait", {"runs": [run.id], "seconds": 3600.0}, timeout=60)["runs"]
    assert (answer["id"], answer["state"]) == (run.id, "unknown")
