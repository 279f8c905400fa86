"""Epochs as Lightning counts them, in its bar and in the names of its files: from 0. `4/9` is the fifth of ten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurun.store.checkpoint_store import is_number

if TYPE_CHECKING:
    from gpurun.agent.schema.checkpoint import Reported


def epoch(told: Reported) -> float | None:
    """The one that a training is in, or was in last: after a fit Lightning's own counter stands one behind the end."""
    now, last = told.get("epoch"), last_epoch(told)
    if not is_number(now):
        return None
    return now if last is None else min(now, last)


def last_epoch(told: Reported) -> float | None:
    """The one that it is to end with; None where that is not known."""
    count = told.get("max_epochs")
    return count - 1 if is_number(count) and count > 0 else None
