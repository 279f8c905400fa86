from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import locks
from gpurun.agent.host.gpus import Gpu
from gpurun.agent.queue import leases, shared_folder, tickets


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))


def test_folder_is_ours_alone() -> None:
    assert stat.S_IMODE(os.stat(locks.folder()).st_mode) == 0o700


def test_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    Path(locks.folder()).chmod(0o777)
    with pytest.raises(AgentError, match=r"is open to other accounts \(mode 0777\)"):
        locks.folder()


def test_lock_whose_file_was_cleaned_away_no_longer_stands() -> None:
    held = locks.acquire(locks.run_lock("train-0000"))
    assert held is not None
    os.unlink(held.path)
    assert not held.is_intact()


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
        "GPU 3: 2048 MiB of memory in use by a process that gpurun cannot see"
    )


def test_lock_of_another_user_in_the_sticky_folder_can_be_taken() -> None:
    """An agent of an older gpurun, of another account, opens it for writing."""
    held = leases.take(["GPU-0"], "train-0000", "ada")
    assert held is not None
    leases.release(held)
    assert stat.S_IMODE(os.stat(shared_folder.path()).st_mode) == 0o1777
    assert stat.S_IMODE(os.stat(leases.lock_path("GPU-0")).st_mode) == 0o666
