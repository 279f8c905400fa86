"""Epochs, counted from 0."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.store.epochs import epoch, last_epoch


@pytest.mark.parametrize(
    ("told", "now", "last"),
    [
        ({"epoch": 0, "max_epochs": 10}, 0, 9),
        ({"epoch": 9, "max_epochs": 10}, 9, 9),
        ({"epoch": 10, "max_epochs": 10}, 9, 9),  # behind the fit's end
        ({"epoch": 3, "max_epochs": None}, 3, None),
        ({"epoch": 0, "max_epochs": 0}, 0, None),
        ({"epoch": "x", "max_epochs": "y"}, None, None),
        ({}, None, None),
    ],
)
def test_the_one_that_it_is_in(told: dict[str, Any], now: float | None, last: float | None) -> None:
    assert (epoch(told), last_epoch(told)) == (now, last)
