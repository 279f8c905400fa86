"""Write the progress of a training: a line in progress.jsonl at most every second, and one at the end of each epoch.

This runs at every batch, so a batch costs only a reading of the clock.
"""

import time
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

from . import lines
from .loops import batches_done, epoch_is_open, metrics

LINE_INTERVAL = 1.0  # seconds
RATE_WINDOW = 30.0  # seconds over which the rate is averaged


class Progress:
    """The progress of one Trainer; only rank zero writes it."""

    def __init__(self, path: str, attempt: int) -> None:
        self.path = path
        self.attempt = attempt
        self.next = 0.0
        self.steps: Deque[Tuple[float, int]] = deque()  # (when, global step)
        self.fit_start: Optional[Tuple[float, float]] = None  # (when, fraction) of this fit

    def start(self, trainer: Any) -> None:
        """Start to measure a fit, new or resumed: the time before it must not count in the estimate."""
        now = time.monotonic()
        self.steps.clear()
        self.steps.append((now, trainer.global_step))
        fraction = done(trainer)
        self.fit_start = None if fraction is None else (now, fraction)

    def line(self, trainer: Any, stage: str, batch: Optional[int], batches: Any) -> None:
        now = time.monotonic()
        self.next = now + LINE_INTERVAL
        fitting = self.fit_start is not None and trainer.state.fn == "fit"
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
        """Return steps per second over RATE_WINDOW."""
        self.steps.append((now, step))
        while len(self.steps) > 2 and self.steps[1][0] < now - RATE_WINDOW:
            self.steps.popleft()
        before, earlier = self.steps[0]
        return (step - earlier) / (now - before) if now > before and step > earlier else None

    def _left(self, now: float, fraction: Optional[float]) -> Optional[float]:
        """Return the seconds left, estimated from this fit so far, including validations and waits for data."""
        if self.fit_start is None or fraction is None:
            return None
        started, fraction_then = self.fit_start
        advanced = fraction - fraction_then
        return (1.0 - fraction) * (now - started) / advanced if advanced > 0 else None


def done(trainer: Any) -> Optional[float]:
    """Return the finished fraction of the fit, 0 to 1; None for a fit without an end."""
    shares = []
    steps, epochs, batches = limit(trainer.max_steps), limit(trainer.max_epochs), limit(trainer.num_training_batches)
    if steps:
        shares.append(trainer.global_step / steps)
    if epochs:
        batch = batches_done(trainer) if epoch_is_open(trainer) else 0
        shares.append((trainer.current_epoch + (share(batch, batches) or 0.0)) / epochs)
    return min(1.0, max(shares)) if shares else None


def share(part: Optional[int], whole: Any) -> Optional[float]:
    total = limit(whole)
    return min(1.0, part / total) if part is not None and total else None


def limit(value: Any) -> Optional[int]:
    """Return None for a value without a limit, which Lightning writes as -1, None or infinity."""
    if isinstance(value, (list, tuple)):
        parts = [limit(each) for each in value]
        return None if None in parts else sum(part for part in parts if part is not None)
    if value is None or value < 0 or value == float("inf"):
        return None
    return int(value)
