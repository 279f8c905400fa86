from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import disks, locks
from tests.support.another_account import NAME, UID, does, folder_for_all
from tests.unit.agent.host.test_locks import own_folder

__all__ = ["own_folder"]


def test_folder_of_somebody_else_is_refused_with_the_owners_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_all() as tmp:
        monkeypatch.setenv("GPURUN_LOCKS", str(tmp))
        place = tmp / f"gpurun-{UID + 1}"
        does(lambda: place.mkdir(mode=0o700))
        monkeypatch.setattr(os, "getuid", lambda: UID + 1)  # never ours, whoever runs this test
        monkeypatch.setenv("HOME", "/proc")  # on no disk of this machine's, as an NFS home is
        with pytest.raises(AgentError, match=f"belongs to another account: {NAME}"):
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
