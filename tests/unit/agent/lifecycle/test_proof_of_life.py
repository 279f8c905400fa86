"""Who is alive when the usual proof is gone: lock files that were swept away, keepers that were killed."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import pytest

from gpurun.agent import machine
from gpurun.agent.host import locks
from gpurun.agent.paths import HostPaths


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))
    return locks.run_lock(f"train-{secrets.token_hex(2)}")  # an earlier gpurun's suite beside this one signs no file


def test_lock_whose_file_was_removed_is_still_held(lock: str) -> None:
    held = locks.acquire(lock)
    assert held is not None
    os.unlink(lock)
    assert locks.acquire(lock) is None
    assert not locks.is_free(lock)
    held.release()
    assert locks.is_free(lock)
    again = locks.acquire(lock)
    assert again is not None
    again.release()


def test_lock_that_was_asked_for_more_often_than_its_queue_is_long_is_still_held(lock: str) -> None:
    held = locks.acquire(lock)
    assert held is not None
    os.unlink(lock)
    assert not any(locks.is_free(lock) for _ in range(40))
    held.release()
    assert locks.is_free(lock)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[HostPaths]:
    """Two roots, as of two containers that see the same paths."""
    roots = [HostPaths(str(tmp_path / name)) for name in ("one", "two")]
    for root in roots:
        os.mkdir(root.root)
        machine.make_root_id(root)
    monkeypatch.setattr(locks, "_works_for", [roots[0]])
    return roots


def test_lock_of_another_container_in_the_same_network_is_free_here(lock: str, roots: list[HostPaths]) -> None:
    held = locks.acquire(lock)
    assert held is not None
    os.unlink(lock)  # the other container has a /tmp of its own
    locks.work_for(roots[1])
    assert locks.is_free(lock)
    assert locks.holders(lock) == set()
    locks.work_for(roots[0])
    assert not locks.is_free(lock)
    held.release()


def test_lock_of_an_earlier_gpurun_whose_file_was_removed_is_still_held(lock: str, roots: list[HostPaths]) -> None:
    name = locks._beacon_names(lock)[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as earlier:
        earlier.bind(name)
        earlier.listen(16)
        assert not locks.is_free(lock)
        assert locks.acquire(lock) is None
    assert locks.is_free(lock)
