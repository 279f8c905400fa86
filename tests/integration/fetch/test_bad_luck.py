"""Full disks, broken lines, killed clients: nothing is lost or half in its place."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from gpurun import fetch
from gpurun.errors import ContactLost, GpurunError, HostUnreachable
from gpurun.events import Event, Moved
from gpurun.fetch import destination
from gpurun.sync.retry import MAX_IDLE_ATTEMPTS
from tests.integration.fetch.conftest import FetchedRun
from tests.support.faultproxy import FaultProxy
from tests.support.part import part


def test_more_than_fits_is_told_before_anything_is_sent(run: FetchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.job.write("x", b"1" * 1000)
    run.job.end()
    monkeypatch.setattr(destination.Destination, "free", lambda self: 10)
    with pytest.raises(GpurunError, match="disk of this machine is full") as caught:
        run.fetch()
    assert "-o" in caught.value.next_step
    assert run.files() == {}


def test_a_disk_that_fills_up_leaves_nothing_half_placed(run: FetchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.job.write("x", b"new", at=time.time() - 60)
    run.job.end()

    def full(self: object, item: object, sha256: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(destination.Destination, "place", full)
        with pytest.raises(GpurunError, match="disk of this machine is full"):
            run.fetch()
    assert run.files() == {}
    run.fetch()
    assert run.files() == {"x": b"new"}


def test_nothing_is_transferred_when_the_answer_is_no(run: FetchedRun) -> None:
    run.job.write("x", b"1" * 100)
    run.job.end()
    asked: list[fetch.Wanted] = []

    def no(event: Event) -> None:
        if isinstance(event, fetch.Wanted):
            asked.append(event)
            raise GpurunError("no")

    with pytest.raises(GpurunError, match="no"):
        run.fetch(report=no)
    assert asked[0].bytes > 100
    assert asked[0].largest(1)[0].to in ("x", "_gpurun/events.jsonl")
    assert run.files() == {}


def test_two_fetches_into_one_folder_do_not_mix(run: FetchedRun) -> None:
    run.job.end()
    with destination.opened(run.to, run.id), pytest.raises(GpurunError, match="another gpurun"):
        run.fetch()


def test_put_aside_while_a_fetch_runs_moves_nothing(tmp_path: Path) -> None:
    """In a second terminal, once the run went on on another host."""
    folder, aside = tmp_path / "fetched", tmp_path / "aside"

    def move() -> object:
        return destination.put_aside(folder, "train-aaaa", "hb", lambda host: aside)

    with destination.opened(folder, "train-aaaa") as fetching:
        fetching.comes_from("a", part({"host_id": "ha"}))
        (fetching.staging / "w.ckpt").write_bytes(b"on its way")
        fetching.save()
        assert move() is None
        assert (fetching.staging / "w.ckpt").read_bytes() == b"on its way"
        with pytest.raises(GpurunError, match="another gpurun"), destination.opened(folder, "train-aaaa"):
            raise AssertionError("two fetches in one folder")
    assert move() == (destination.Host("a", "ha"), aside)
    assert not folder.exists()


def test_opened_while_the_folder_is_moved_away_locks_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock goes with the folder: it must not be taken for that of the one that is made in its place."""
    folder, aside = tmp_path / "fetched", tmp_path / "aside"
    flock = fcntl.flock

    def move_first(file: IO[bytes], operation: int) -> None:
        if not aside.exists():
            folder.rename(aside)
        flock(file, operation)

    monkeypatch.setattr("gpurun.fetch.destination.fcntl.flock", move_first)
    with destination.opened(folder, "train-aaaa"):
        monkeypatch.undo()
        with pytest.raises(GpurunError, match="another gpurun"), destination.opened(folder, "train-aaaa"):
            raise AssertionError("two fetches in one folder")
        with destination.opened(aside, "train-aaaa"):
            pass


def test_a_host_that_hangs_up_in_the_middle_is_asked_again(run: FetchedRun, slow: FaultProxy) -> None:
    content = random.Random(1).randbytes(50_000_000)
    run.job.write("big.bin", content)
    run.job.end()
    hung_up: list[int] = []

    def report(event: Event) -> None:
        if isinstance(event, Moved) and event.done > 5_000_000 and not hung_up:
            hung_up.append(event.done)
            slow.reset()

    try:
        run.fetch(report=report)
    except (ContactLost, HostUnreachable):  # the questions that were on their way may be lost with it
        run.fetch()
    assert hung_up
    assert run.files() == {"big.bin": content}


def test_a_line_that_drops_again_and_again_brings_all_in_one_fetch(run: FetchedRun, slow: FaultProxy) -> None:
    """More often than rsync reports how far it is."""
    content = random.Random(4).randbytes(16_000_000)
    run.job.write("big.bin", content)
    run.job.end()
    slow.heal()  # as fast as it can
    slow.reset_after(2_000_000, again=True)
    run.fetch()
    assert run.files() == {"big.bin": content}
    assert len(slow.traffic) > MAX_IDLE_ATTEMPTS
    done = [event.done for event in run.events if isinstance(event, Moved)]
    assert done == sorted(done)
    assert any(4_000_000 < one < 16_000_000 for one in done), "rsync's own reports are too rare"


KILLED = """
import sys
from pathlib import Path
from gpurun import fetch; from gpurun.events import Moved; from gpurun.remote import wire
from gpurun.config.hosts import HostProfile
def report(event):
    if isinstance(event, Moved) and event.done > 4_000_000:
        print("there", flush=True)
run = fetch.fetch_run(wire.connect(HostProfile(sys.argv[1]), interactive=False), sys.argv[2], Path(sys.argv[3]),
                      report=report)
"""


def test_a_fetch_that_was_killed_goes_on_from_what_had_come(run: FetchedRun, slow: FaultProxy) -> None:
    content = random.Random(2).randbytes(50_000_000)
    run.job.write("big.bin", content)
    run.job.end()
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, "demo", run.id, str(run.to)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"there\n"
    os.killpg(killed.pid, signal.SIGKILL)  # client, rsync and ssh: nobody can tidy up
    killed.wait()
    assert run.files() == {}
    with destination.opened(run.to, run.id) as there:
        kept = [path for path in there.staging.rglob("*") if path.is_file()]
        assert [(path.parent.name, path.name) for path in kept] == [(destination.PARTIAL, "big.bin")]
        assert kept[0].stat().st_size > 1_000_000
    before = sum(each.down for each in slow.traffic)
    run.fetch()
    assert run.files() == {"big.bin": content}
    assert sum(each.down for each in slow.traffic) - before < len(content)
    assert list((run.to / ".gpurun").glob("incoming/**/*")) == []


def test_ctrl_c_ends_a_fetch_soon_and_keeps_what_has_come(run: FetchedRun, slow: FaultProxy) -> None:
    content = random.Random(3).randbytes(50_000_000)
    run.job.write("big.bin", content)
    run.job.end()
    fetching = subprocess.Popen(
        [sys.executable, "-c", KILLED, "demo", run.id, str(run.to)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert fetching.stdout is not None
    assert fetching.stdout.readline() == b"there\n"
    os.killpg(fetching.pid, signal.SIGINT)
    assert fetching.wait(timeout=60) == -signal.SIGINT
    kept = [path for path in (run.to / ".gpurun").rglob("*") if path.is_file() and path.name == "big.bin"]
    assert kept[0].stat().st_size > 1_000_000
    run.fetch()
    assert run.files() == {"big.bin": content}
