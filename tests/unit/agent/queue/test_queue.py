"""The line for GPUs on a host that other accounts use too: what they leave in its folder, and what a reboot leaves of it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import runtimes
from gpurun.agent import vocabulary as words
from gpurun.agent.errors import RunFailed
from gpurun.agent.host import locks
from gpurun.agent.host.gpus import Gpu
from gpurun.agent.lifecycle import supervisor
from gpurun.agent.paths import RunPaths
from gpurun.agent.queue import allocation, leases, shared_folder, tickets
from gpurun.agent.runtimes import Presence
from gpurun.agent.state import journal, origin
from tests.support import another_account
from tests.support.part import only
from tests.support.run_folder import RunFolder


@pytest.fixture(autouse=True)
def tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is /tmp for these hosts."""
    with another_account.folder_for_all() as folder:
        monkeypatch.setenv("GPURUN_LOCKS", str(folder))
        yield folder


# A folder that others can write


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder", "link to nothing"])
def test_odd_file_in_the_place_of_a_gpus_lock_is_not_used(tmp: Path, kind: str) -> None:
    mine = tmp / "mine"
    mine.write_text("mine")
    with shared_folder.opened():
        pass
    place = Path(leases.lock_path("GPU-0"))
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to(mine),
        "second name": lambda: place.hardlink_to(mine),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "link to nothing": lambda: place.symlink_to(tmp / "nothing"),
    }
    make[kind]()
    assert leases.take(["GPU-0"], "train-0000", "ada") is None
    use = leases.holder("GPU-0")
    assert use is not None
    assert "lock file cannot be used" in use.by
    assert mine.read_text() == "mine"
    assert not (tmp / "nothing").exists()
    assert not list(place.parent.glob("GPU-0.*")), "the note of a lease that was not had"


def test_ticket_of_one_that_gives_no_sign_is_not_waited_for(tmp: Path) -> None:
    """A supervisor that hangs in the kernel, or is stopped, keeps its lock."""
    first, second = tickets.draw("train-0000"), tickets.draw("train-0001")
    held = tickets.stand_in_line(first)
    assert tickets.ahead_of(second) == first
    long_ago = time.time() - tickets.SILENCE - 1
    os.utime(first.path, (long_ago, long_ago))
    assert tickets.ahead_of(second) is None
    tickets.leave(first, held)


def test_ticket_that_a_wrong_clock_gave_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time_ns", lambda: real() + 30 * 86_400 * 10**9)
        early = tickets.draw("train-0000")
    assert tickets.of(early.run, early.number) < tickets.draw("train-0001")
    soon = tickets.draw("train-0002")
    assert tickets.of(soon.run, soon.number) == soon


# The order


@pytest.mark.parametrize("doubt", [None, "train-0000 is a copy"])
def test_run_that_does_not_come_back_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, doubt: str | None
) -> None:
    run, other = (RunFolder(tmp_path, run_id) for run_id in ("train-0001", "train-0000"))
    for folder, number in ((other, 1), (run, 2)):
        Path(folder.paths.events).unlink()
        journal.record(folder.paths, words.QUEUED, ticket=number)
        journal.record(folder.paths, "prepared", record=only(image=None))
    told = json.loads(Path(run.paths.job).read_text())
    job: Any = {**told, "owner": "ada", "resources": {"gpus": 1}, "host": {"engine": None}}
    monkeypatch.setattr(origin, "doubt", lambda _: doubt)
    monkeypatch.setattr(allocation, "find_gpu_uses", lambda _: ([Gpu(0, "GPU-0", "H100", 80 << 30, 0)], {}))
    ticket = tickets.Ticket(2, os.getuid(), run.paths.id)
    waiting = allocation._Waiting(run.paths)
    if doubt is None:
        taken, why = allocation._try_to_take(run.paths, job, ticket, waiting, returning=True)
        assert taken is None
        assert "after run train-0000, which returns" in why.text
    taken, _ = allocation._try_to_take(run.paths, job, ticket, waiting, returning=doubt is not None)
    assert taken is not None
    leases.release(taken[1])


@pytest.mark.parametrize("lives", [True, False], ids=["its supervisor lives", "nobody looks after it"])
def test_run_that_has_stepped_aside_is_waited_for_only_when_it_may_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lives: bool
) -> None:
    run, other = (RunFolder(tmp_path, f"train-{secrets.token_hex(2)}") for _ in range(2))
    Path(other.paths.events).unlink()
    journal.record(other.paths, words.QUEUED, ticket=1)
    journal.record(other.paths, "prepared", record=only(image=None))
    monkeypatch.setattr(origin, "doubt", lambda _: None)
    ticket = tickets.Ticket(2, os.getuid(), run.paths.id)
    held = locks.acquire(locks.run_lock(other.paths.id)) if lives else None
    assert allocation._find_returning_run(run.paths, ticket) == other.paths.id
    aside = allocation._Waiting(other.paths, aside=True)
    aside.record(allocation.Why("2 GPU(s): the host has 1 now"))
    assert allocation._find_returning_run(run.paths, ticket) == (None if lives else other.paths.id)
    aside.aside = False
    aside.record(allocation.Why("2 GPU(s): the host has 1 now"))
    assert allocation._find_returning_run(run.paths, ticket) == other.paths.id
    if held is not None:
        held.release()


# Patience


def test_run_steps_aside_when_the_host_has_too_few_gpus_for_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    Path(run.paths.events).unlink()
    journal.record(run.paths, words.QUEUED, ticket=1)
    job: Any = {"owner": "ada", "resources": {"gpus": 2}, "host": {"engine": None}}
    found = [Gpu(0, "GPU-0", "H100", 80 << 30, 0)]
    monkeypatch.setattr(allocation, "find_gpu_uses", lambda _: (list(found), {}))
    monkeypatch.setattr(allocation, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(allocation, "ASIDE_AFTER", 0.0)
    stood: list[bool] = []

    def check() -> None:
        stood.append(bool(tickets.in_line()))
        if len(stood) == 4:
            found.append(Gpu(1, "GPU-1", "H100", 80 << 30, 0))

    taken, held = allocation.wait_for_gpus(run.paths, job, check)
    leases.release(held)
    assert [gpu.index for gpu in taken] == [0, 1]
    assert stood == [False, True, False, False]
    told = [event.get("aside") for event in journal.read(run.paths) if "waiting" in event]
    assert told[-1] is True


class NeverStarts:
    """A runtime whose host cannot start the job."""

    def presence(self, run: RunPaths, job: Any) -> Presence:
        return Presence("absent")

    def prepare(self, run: RunPaths, job: Any, say: Any) -> Any:
        return {"image": None}

    def create_and_start(self, run: RunPaths, *_: object) -> None:
        use = leases.holder("GPU-0")
        assert use is not None
        assert use.run == run.id
        raise RunFailed("start", "no process left")

    def remove(self, run: RunPaths, job: Any) -> None:
        assert leases.holder("GPU-0") is not None, "given back while the job may still be there"


def test_leases_are_given_back_when_the_start_fails_behind_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the supervisor's next attempt waits for GPUs that it holds itself."""
    folder = RunFolder(tmp_path, owner="ada", project={"name": "vision"}, resources={"gpus": 1}, host={"engine": None})
    run = folder.paths
    Path(run.events).unlink()
    journal.record(run, words.QUEUED, ticket=1)
    monkeypatch.setattr(runtimes, "load", lambda *_: NeverStarts())
    monkeypatch.setattr(allocation, "find_gpu_uses", lambda _: ([Gpu(0, "GPU-0", "H100", 80 << 30, 0)], {}))
    supervisor._run_attempt(run)
    assert journal.fold(run).reason == "start"
    held = leases.take(["GPU-0"], "train-0001", "bob")
    assert held is not None
    leases.release(held)


# What the journal says of a wait


def test_amounts_that_change_write_no_events(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).paths
    waiting = allocation._Waiting(run)
    before = len(journal.read(run))
    found = [Gpu(0, "GPU-0", "H100", 80 << 30, 0)]
    for used in range(50):
        uses = leases.uses(found, [("GPU-0", 42, "python", used << 20)], {}, {42: "bob"})
        text, key = leases.why_waiting(found, 1, uses), leases.blockers(found, uses)
        assert f"{used} MiB" in text
        waiting.record(allocation.Why(text, key))
    assert len(journal.read(run)) == before + 1


def test_waits_that_change_all_the_time_write_few_events(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).paths
    waiting = allocation._Waiting(run)
    before = len(journal.read(run))
    for number in range(50):
        waiting.record(allocation.Why(f"after run train-{number:04}"))
    assert len(journal.read(run)) == before + allocation.EVENTS_AT_ONCE
    waiting.filled -= allocation.EVENT_EVERY
    waiting.record(allocation.Why("the last"))
    assert journal.fold(run).waiting == "the last"
