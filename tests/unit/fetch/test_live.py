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
from gpurun.fetch import once
from tests.unit.fetch.conftest import FetchedRun


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
    assert [(left.path, left.why) for left in fetched.writing] == [("last.ckpt", once.STILL_WRITTEN)]
    assert run.files() == {"last.ckpt": whole}
    assert run.slept == [once.PAUSE] * 2
    run.job.write("last.ckpt", newer)
    time.sleep(0.2)
    run.fetch()
    assert run.files() == {"last.ckpt": newer}


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
    for fetched in fetch.watch(run.wire, run.id, run.to, report=fetch.Report(), every=0.1):
        passes.append(fetched.live)
        if len(passes) == 2:
            run.job.write("b", b"2")
            run.job.end()
    assert passes == [True, True, False]
    assert run.files() == {"a": b"1", "b": b"2"}
