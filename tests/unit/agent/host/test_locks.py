from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import disks, locks
from gpurun.agent.host.gpus import Gpu
from gpurun.agent.queue import leases, shared_folder, tickets
from tests.unit.agent.another_account import NAME, UID, does, folder_for_all


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))


def test_folder_is_ours_alone() -> None:
    assert stat.S_IMODE(os.stat(locks.folder()).st_mode) == 0o700


def test_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    Path(locks.folder()).chmod(0o777)
    with pytest.raises(AgentError, match=r"is open to others \(mode 0777\)"):
        locks.folder()


def test_folder_of_somebody_else_is_refused_with_the_owners_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_all() as tmp:
        monkeypatch.setenv("GPURUN_LOCKS", str(tmp))
        place = tmp / f"gpurun-{UID + 1}"
        does(lambda: place.mkdir(mode=0o700))
        monkeypatch.setattr(os, "getuid", lambda: UID + 1)  # never ours, whoever runs this test
        monkeypatch.setenv("HOME", "/proc")  # on no disk of this machine's, as an NFS home is
        with pytest.raises(AgentError, match=f"belongs to somebody else: {NAME}"):
            locks.folder()


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Lets somebody else take the name of the folder in /tmp; returns what is there then. The home is on a local disk."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def take() -> Path:
        place = tmp / f"gpurun-{os.getuid()}"
        does(place.touch)  # a file: for who is not root, it is of the same account
        return place

    with folder_for_all() as tmp:
        monkeypatch.setenv("GPURUN_LOCKS", str(tmp))
        yield take


def test_folder_whose_name_another_account_has_taken_is_below_the_home_from_then_on(
    tmp_path: Path, taken: Callable[[], Path]
) -> None:
    place = taken()
    there = tmp_path / f"home/.gpurun/locks/gpurun-{os.getuid()}"
    assert locks.folder() == str(there)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (there, there.parent, there.parents[1])} == {0o700}
    held = locks.acquire(locks.run_lock("train-0000"))
    assert held is not None
    place.unlink()
    assert locks.folder() == str(there)
    assert not locks.is_free(locks.run_lock("train-0000"))
    held.release()
    assert locks.is_free(locks.run_lock("train-0000"))


def test_lock_that_was_held_when_another_account_took_the_folders_name_is_still_held(
    tmp_path: Path, taken: Callable[[], Path]
) -> None:
    before = locks.run_lock("train-0000")
    held = locks.acquire(before)
    assert held is not None
    Path(locks.folder()).rename(tmp_path / "swept")
    taken()
    assert locks.run_lock("train-0000") != before
    assert not locks.is_free(locks.run_lock("train-0000"))
    assert locks.acquire(locks.run_lock("train-0000")) is None
    held.release()


def test_folder_below_a_home_that_other_machines_share_is_not_the_one_another_machine_made(
    taken: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is on a disk of the machine that made it, and comes to this one by NFS: live runs hold their locks in /tmp here."""
    place = taken()
    below = locks.folder()
    place.unlink()
    monkeypatch.setattr(disks, "type_of", lambda mounts, path: "nfs4")
    assert locks.folder() == str(place) != below


def test_held_lock_is_not_free_until_the_holder_is_gone() -> None:
    path = locks.run_lock("train-0000")
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        locks.acquire(path)
        os.write(tell, b"1")
        signal.pause()
    os.read(ready, 1)
    assert locks.acquire(path) is None
    assert not locks.is_free(path)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert locks.is_free(path)
    held = locks.acquire(path)
    assert held is not None
    held.release()


def test_lock_whose_file_was_cleaned_away_no_longer_stands() -> None:
    held = locks.acquire(locks.run_lock("train-0000"))
    assert held is not None
    os.unlink(held.path)
    assert not held.stands()


def test_inherited_lock_is_free_only_when_the_last_process_is_gone() -> None:
    """What tells that the whole of a job without an engine is gone."""
    path = locks.job_lock("train-0000")
    held = locks.acquire(path)
    assert held is not None
    child = os.fork()
    if child == 0:
        signal.pause()
    held.release()
    assert not locks.is_free(path)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert locks.is_free(path)


def test_first_in_line_is_the_lowest_ticket_of_those_who_stand() -> None:
    first, second, third = (tickets.draw(f"train-000{n}") for n in range(3))
    assert first.number < second.number < third.number
    held_third = tickets.stand_in_line(third)
    assert tickets.ahead_of(third) is None  # the others still prepare: they keep nobody waiting
    held_second = tickets.stand_in_line(second)
    assert tickets.ahead_of(third) == second
    assert tickets.in_line() == [second, third]
    tickets.leave(second, held_second)
    assert tickets.ahead_of(third) is None
    tickets.leave(third, held_third)


def gpu(index: int, used: int = 0) -> Gpu:
    return Gpu(index, f"GPU-{index}", "A100", 80 << 30, used)


def test_lease_is_all_or_nothing() -> None:
    held = leases.take(["GPU-1"], "train-0000", "ada")
    assert held is not None
    assert leases.take(["GPU-0", "GPU-1"], "train-0001", "bob") is None
    assert leases.holder("GPU-0") is None
    use = leases.holder("GPU-1")
    assert use is not None
    assert use.by == "run train-0000 of ada"
    leases.release(held)
    assert leases.holder("GPU-1") is None


def test_gpus_of_strangers_are_not_taken_and_named() -> None:
    gpus = [gpu(0), gpu(1), gpu(2), gpu(3, used=2 << 30)]
    used = leases.uses(
        gpus, [("GPU-0", 4242, "/usr/bin/python train.py", 2 << 30)], {"GPU-1": "train-9999"}, {4242: "bob"}
    )
    assert leases.choose(gpus, 1, used) == [gpu(2)]
    assert leases.choose(gpus, 2, used) is None
    assert leases.why_waiting(gpus, 2, used) == (
        "2 GPUs (1 of 4 free); GPU 0: process 4242 (python of bob, 2048 MiB); GPU 1: run train-9999; "
        "GPU 3: 2048 MiB of memory in use by somebody gpurun cannot see"
    )


def test_lock_of_another_user_in_the_sticky_folder_can_be_taken() -> None:
    """An agent of an older gpurun, of another account, opens it for writing."""
    held = leases.take(["GPU-0"], "train-0000", "ada")
    assert held is not None
    leases.release(held)
    assert stat.S_IMODE(os.stat(shared_folder.path()).st_mode) == 0o1777
    assert stat.S_IMODE(os.stat(leases.lock_path("GPU-0")).st_mode) == 0o666
