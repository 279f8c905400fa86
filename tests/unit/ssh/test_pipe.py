"""Read a program's output by marks and sizes."""

from __future__ import annotations

import pytest

from gpurun.ssh.pipe import Patience


def test_restart_restarts_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gpurun.ssh.pipe.time.monotonic", lambda: now[0])
    patience = Patience(10)
    now[0] += 30
    patience.restart()
    assert patience.left() == 10
