"""Programs are asked with a deadline, and what they say is passed on raw."""

from __future__ import annotations

from gpurun.agent import programs


def test_the_last_lines() -> None:
    assert programs.last_lines(b"one\n\n 10%\r 20%\r\n\xff\n", 2) == ["20%", "�"]
