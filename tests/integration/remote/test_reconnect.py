"""What a broken connection means, by clocks that the test winds."""

from __future__ import annotations

from tests.unit.remote.test_reconnect import LOST, Clock, Host, clock

__all__ = ["clock"]


def test_it_is_tried_at_once_and_then_steadily_until_it_gets_through(clock: Clock) -> None:
    host = Host(clock, *[LOST] * 19, "through")
    assert host.reach() == "through"
    assert host.paused[0] < 0.5
    assert host.paused == sorted(host.paused)
    assert set(host.paused[3:]) == {1.5}
    assert host.asked == 0
