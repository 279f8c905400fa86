"""Read a program's output by marks and sizes."""

from __future__ import annotations

import pytest

from gpurun.ssh.pipe import Patience


def test_bytes_restart_the_clock_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gpurun.ssh.pipe.time.monotonic", lambda: now[0])
    patience = Patience(10, in_all=12)
    for left in (10, 7, 2):
        now[0] += 5
        patience.heard()
        assert patience.left() == left
