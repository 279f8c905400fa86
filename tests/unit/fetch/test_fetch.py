"""What a fetch brings over real ssh and rsync, and what it never does."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpurun import fetch, index
from gpurun.errors import ContactLost, GpurunError, HostUnreachable
from gpurun.fetch import destination, once
from gpurun.wire import Wire
from tests.faultproxy import FaultProxy
from tests.unit.fetch.conftest import FetchedRun
from tests.unit.hostile import NAMES


@dataclass(frozen=True)
class Meddler:
    """A wire whose answers are changed on the way, as a host that lies or breaks would."""

    wire: Wire
    changes: Mapping[str, Any] = field(default_factory=dict)  # verb -> what makes another answer of one

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wire, name)

    def ask(self, verb: str, request: Any, **options: Any) -> Any:
        answer = self.wire.ask(verb, request, **options)
        return self.changes.get(verb, lambda told: told)(answer)


def an_entry(**changes: Any) -> dict[str, Any]:
    entry = {"path": "workspace/x", "as": "x", "size": 1, "mtime_ns": 1, "inode": 1, "link": None}
    return {**entry, "ctime_ns": 1, "rank": 4, "grows": False, "writing": None, **changes}


def test_any_tree_comes_back_byte_for_byte(run: FetchedRun) -> None:
    dice = random.Random(6)
    wrote = {}
    for _ in range(60):
        parts = [dice.choice(NAMES) + str(dice.randrange(9)).encode() for _ in range(dice.randint(1, 4))]
        path, content = b"/".join(parts), dice.randbytes(dice.choice([0, 1, 700, 70_000]))
        try:
            run.job.write(path, content)
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            continue
        wrote[os.fsdecode(path)] = content
    run.job.end()
    fetched = run.fetch()
    assert (fetched.left, fetched.writing) == ([], [])
    assert run.files() == wrote
    again = run.fetch()
    assert (again.placed, again.unchanged) == ([], len(wrote) + 3)


def test_what_was_fetched_is_known_to_host_and_index(run: FetchedRun) -> None:
    job = {"id": run.id, "name": "train", "created": 1.0, "project": {"name": "p", "root": "/p"}}
    index.add(job, "demo")
    run.job.write("x")
    run.fetch()
    assert not Path(run.job.paths.fetched).exists()  # it lives, and writes on
    run.job.end()
    run.fetch(only=["x"])
    assert json.loads(Path(run.job.paths.fetched).read_text())["t"] is None
    run.fetch()
    assert json.loads(Path(run.job.paths.fetched).read_text())["t"] is not None
    entry = index.find(run.id)
    assert entry is not None
    assert entry.fetched_to == str(run.to)


def test_only_globs_pick_and_reach_into_caches(run: FetchedRun) -> None:
    for name in ("a.ckpt", "deep/b.ckpt", "c.csv", ".cache/d.ckpt", "logs/e"):
        run.job.write(name)
    run.job.end()
    run.fetch(only=["*.ckpt", "logs/"])
    assert sorted(run.files()) == [".cache/d.ckpt", "a.ckpt", "deep/b.ckpt", "logs/e"]


def test_a_changed_file_replaces_the_one_fetched_before(run: FetchedRun) -> None:
    run.job.write("last.ckpt", b"epoch 1")
    run.job.end()
    run.fetch()
    run.job.write("last.ckpt", b"epoch 2")  # same size, same time
    assert [placed.at for placed in run.fetch().placed] == ["last.ckpt"]
    assert run.files() == {"last.ckpt": b"epoch 2"}
    assert run.fetch().placed == []


def test_a_file_deleted_here_comes_again(run: FetchedRun) -> None:
    run.job.write("x", b"1")
    run.job.end()
    run.fetch()
    (run.to / "x").unlink()
    run.fetch()
    assert run.files() == {"x": b"1"}


def test_files_that_are_not_from_this_run_are_never_replaced(run: FetchedRun) -> None:
    run.to.mkdir(parents=True)
    (run.to / "config.yaml").write_bytes(b"mine")
    (run.to / "same").write_bytes(b"the same")
    run.job.write("config.yaml", b"the job's")
    run.job.write("same", b"the same")
    run.job.end()
    fetched = run.fetch()
    assert run.files() == {"config.yaml": b"mine", f"config.{run.id}.yaml": b"the job's", "same": b"the same"}
    assert [placed.at for placed in fetched.beside] == [f"config.{run.id}.yaml"]
    assert run.fetch().placed == []


def test_links_come_relative_and_those_that_lead_out_are_told(run: FetchedRun) -> None:
    workspace = run.job.root / "workspace"
    run.job.write("ckpt/epoch=3.ckpt", b"w")
    (workspace / "ckpt" / "last.ckpt").symlink_to("epoch=3.ckpt")
    (workspace / "best").symlink_to("/workspace/ckpt/epoch=3.ckpt")
    (workspace / "home").symlink_to("/etc/passwd")
    run.job.end()
    fetched = run.fetch()
    assert os.readlink(run.to / "best") == "ckpt/epoch=3.ckpt"
    assert (run.to / "ckpt" / "last.ckpt").read_bytes() == b"w"
    assert [(left.path, left.lost) for left in fetched.left] == [("home", False)]
    assert fetched.whole


def test_a_host_that_lies_writes_nothing_elsewhere(run: FetchedRun, tmp_path: Path) -> None:
    run.job.write("x", b"1")
    run.job.write("env", b"SECRET", to="ro")
    lies = [
        an_entry(**{"as": "../../evil"}),
        an_entry(**{"as": str(tmp_path / "evil")}),
        an_entry(path="ro/env", **{"as": "env"}),
        an_entry(link="../../evil", **{"as": "link"}),
        an_entry(path="workspace/x/../../ro/env", **{"as": "y"}),
    ]
    lying = Meddler(run.wire, {"outputs": lambda told: {**told, "files": lies}})
    fetched = fetch.fetch_run(lying, run.id, run.to)  # type: ignore[arg-type]
    assert run.files(record=True) == {}
    assert [path for path in tmp_path.rglob("*") if path.name in ("evil", "env", "link", "y")] == []
    assert len(fetched.left) == len(lies)


def test_no_link_in_the_destination_is_followed(run: FetchedRun, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run.to.mkdir(parents=True)
    (run.to / "ckpt").symlink_to(elsewhere)
    (run.to / "x").symlink_to(elsewhere / "x")
    run.job.write("ckpt/best.ckpt")
    run.job.write("x")
    run.job.end()
    fetched = run.fetch()
    assert list(elsewhere.iterdir()) == []
    assert "link" in next(left.why for left in fetched.left if left.path == "ckpt/best.ckpt")
    assert (run.to / "x").is_symlink()
    assert (run.to / f"x.{run.id}").read_bytes() == b"x"


def test_what_arrives_damaged_is_not_taken(run: FetchedRun) -> None:
    run.job.write("good", b"1")
    run.job.write("bad", b"2")
    run.job.end()

    def another_hash(told: dict[str, Any]) -> dict[str, Any]:
        told["hashes"].get("workspace/bad", {})["sha256"] = "0" * 64
        return told

    fetched = fetch.fetch_run(Meddler(run.wire, {"hash": another_hash}), run.id, run.to)  # type: ignore[arg-type]
    assert run.files() == {"good": b"1"}
    assert [(left.path, left.why) for left in fetched.left] == [("bad", "what arrived differs from what the host has")]
    assert json.loads(Path(run.job.paths.fetched).read_text())["t"] is None
    run.fetch()
    assert run.files() == {"good": b"1", "bad": b"2"}


def test_a_disk_that_ignores_case_gets_one_of_two(run: FetchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.job.write("Model.pt", b"1")
    run.job.write("model.pt", b"22")
    run.job.end()
    monkeypatch.setattr(destination.Destination, "ignores_case", lambda self: True)
    fetched = run.fetch()
    assert run.files() == {"Model.pt": b"1"}
    assert [left.path for left in fetched.left] == ["model.pt"]


def test_a_file_that_cannot_be_read_stops_no_other(run: FetchedRun) -> None:
    run.job.write("a/x", b"1")
    run.job.write("gone", b"2")
    run.job.end()

    def one_more(told: dict[str, Any]) -> dict[str, Any]:
        told["files"].append(an_entry(path="workspace/never", **{"as": "never"}))
        return told

    fetched = fetch.fetch_run(Meddler(run.wire, {"outputs": one_more}), run.id, run.to)  # type: ignore[arg-type]
    assert run.files() == {"a/x": b"1", "gone": b"2"}
    assert (fetched.left, fetched.whole) == ([], True)  # removed meanwhile: no output any more


# --- while the job runs


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


# --- bad luck


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

    def no(wanted: fetch.Wanted) -> None:
        asked.append(wanted)
        raise GpurunError("no")

    with pytest.raises(GpurunError, match="no"):
        run.fetch(report=fetch.Report(confirm=no))
    assert asked[0].bytes > 100
    assert asked[0].largest(1)[0].to in ("x", "_gpurun/events.jsonl")
    assert run.files() == {}


def test_two_fetches_into_one_folder_do_not_mix(run: FetchedRun) -> None:
    run.job.end()
    with destination.opened(run.to, run.id), pytest.raises(GpurunError, match="another gpurun"):
        run.fetch()


def test_a_host_that_hangs_up_in_the_middle_is_asked_again(run: FetchedRun, slow: FaultProxy) -> None:
    content = random.Random(1).randbytes(50_000_000)
    run.job.write("big.bin", content)
    run.job.end()
    hung_up: list[int] = []

    def progress(done: int, total: int) -> None:
        if done > 5_000_000 and not hung_up:
            hung_up.append(done)
            slow.reset()

    try:
        run.fetch(report=fetch.Report(progress=progress))
    except (ContactLost, HostUnreachable):  # the questions that were on their way may be lost with it
        run.fetch()
    assert hung_up
    assert run.files() == {"big.bin": content}


KILLED = """
import sys
from pathlib import Path
from gpurun import fetch, wire
from gpurun.config.hosts import Host
def progress(done, total):
    if done > 4_000_000:
        print("there", flush=True)
run = fetch.fetch_run(wire.connect(Host(sys.argv[1]), interactive=False), sys.argv[2], Path(sys.argv[3]),
                      report=fetch.Report(progress=progress))
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
    assert fetching.wait(timeout=8) == -signal.SIGINT
    kept = [path for path in (run.to / ".gpurun").rglob("*") if path.is_file() and path.name == "big.bin"]
    assert kept[0].stat().st_size > 1_000_000
    run.fetch()
    assert run.files() == {"big.bin": content}
