"""Several gpurun processes on one laptop change its state at the same time, and lose nothing of each other's."""

from __future__ import annotations

import fcntl
import os

import pytest

from gpurun import locked
from gpurun.errors import GpurunError

pytestmark = pytest.mark.usefixtures("home")


def test_state_taken_twice_by_one_thread_is_held_until_the_outer_end() -> None:
    with locked.state():
        with locked.state():
            pass
        assert not is_free()
    assert is_free()


def test_state_held_by_another_process_is_waited_for_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked, "WAIT", 0.0)
    with locked.state():
        pass
    with locked.path().open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(GpurunError, match="another gpurun process"), locked.state():
            pass


def is_free() -> bool:
    fd = os.open(locked.path(), os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
