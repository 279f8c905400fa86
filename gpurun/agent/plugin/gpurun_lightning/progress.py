"""How far a training is: a line in progress.jsonl at most every second, and one at the end of each epoch.

Every batch passes here, so a batch costs a look at the clock and no more.
"""

import time
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

from . import lines
from .loops import batches_done, epoch_is_open, metrics

EVERY = 1.0  # seconds between two lines
WINDOW = 30.0  # seconds that the rate is taken over


class Progress:
    """Of one Trainer, written by rank zero alone."""

    def __init__(self, path: str, attempt: int) -> None:
        self.path = path
        self.attempt = attempt
        self.next = 0.0
        self.seen: Deque[Tuple[float, int]] = deque()  # (when, global step)
        self.began: Optional[Tuple[float, float]] = None  # (when, fraction) of this fit

    def start(self, trainer: Any) -> None:
        """A fit begins, or goes on from a checkpoint: what was before says nothing about the time that is left."""
        now = time.monotonic()
        self.seen.clear()
        self.seen.append((now, trainer.global_step))
        fraction = done(trainer)
        self.began = None if fraction is None else (now, fraction)

    def line(self, trainer: Any, stage: str, batch: Optional[int], batches: Any) -> None:
        now = time.monotonic()
        self.next = now + EVERY
        fitting = self.began is not None and trainer.state.fn == "fit"
        fraction = done(trainer) if fitting else share(batch, batches)
        rate = self._rate(now, trainer.global_step) if trainer.state.fn == "fit" else None
        line: Dict[str, Any] = {
            "t": time.time(),
            "attempt": self.attempt,
            "stage": stage,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "max_epochs": limit(trainer.max_epochs),
            "max_steps": limit(trainer.max_steps),
            "batch": batch,
            "batches": limit(batches),
            "rate": rate,
            "left": self._left(now, fraction) if fitting else None,
            "fraction": fraction,
            "metrics": {str(name): lines.number(value) for name, value in list(metrics(trainer).items())},
        }
        lines.append(self.path, line)

    def _rate(self, now: float, step: int) -> Optional[float]:
        """Steps a second, as of late."""
        self.seen.append((now, step))
        while len(self.seen) > 2 and self.seen[1][0] < now - WINDOW:
            self.seen.popleft()
        before, earlier = self.seen[0]
        return (step - earlier) / (now - before) if now > before and step > earlier else None

    def _left(self, now: float, fraction: Optional[float]) -> Optional[float]:
        """Seconds, from what this fit has done so far: validations and waits for data are in it."""
        if self.began is None or fraction is None:
            return None
        began, at_first = self.began
        advanced = fraction - at_first
        return (1.0 - fraction) * (now - began) / advanced if advanced > 0 else None


def done(trainer: Any) -> Optional[float]:
    """How much of the whole fit is done, 0 to 1; None for one without an end."""
    shares = []
    steps, epochs, batches = limit(trainer.max_steps), limit(trainer.max_epochs), limit(trainer.num_training_batches)
    if steps:
        shares.append(trainer.global_step / steps)
    if epochs:
        batch = batches_done(trainer) if epoch_is_open(trainer) else 0
        shares.append((trainer.current_epoch + (share(batch, batches) or 0.0)) / epochs)
    return min(1.0, max(shares)) if shares else None


def share(part: Optional[int], whole: Any) -> Optional[float]:
    found = limit(whole)
    return min(1.0, part / found) if part is not None and found else None


def limit(value: Any) -> Optional[int]:
    """Lightning says -1, None or infinity for what has no end."""
    if isinstance(value, (list, tuple)):
        parts = [limit(one) for one in value]
        return None if None in parts else sum(part for part in parts if part is not None)
    if value is None or value < 0 or value == float("inf"):
        return None
    return int(value)
