"""How far a training is and what it has reached, in words: what its plugin told, trusted in nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.cli import output
from gpurun.store import epochs
from gpurun.store.checkpoint_store import is_number

if TYPE_CHECKING:
    from gpurun.agent.schema.checkpoint import Reported
    from gpurun.agent.schema.run import RunRecord

FULL, EMPTY = "█", "░"


def progress(record: RunRecord) -> Reported:
    """What was told of the present attempt; empty while that has told nothing, and may still."""
    told = record.get("progress")
    if not isinstance(told, dict):
        return {}
    earlier = told.get("attempt", 1) != record.get("attempt", 1)
    return {} if earlier and not words.is_over(record) else told


def progress_bar(record: RunRecord, length: int, *, word: str = "epoch ", left: bool = True) -> str:
    """`██████░░░░  62% epoch 3/9 4m left`: how much is done, the epoch, the time left; as far as they are known."""
    told = progress(record)
    fraction, seconds = told.get("fraction"), told.get("left")
    parts = []
    if is_number(fraction):
        done = min(max(fraction, 0.0), 1.0)
        full = int(done * length)
        parts += [FULL * full + EMPTY * (length - full), f"{int(100 * done):3d}%"]
    if (epoch := _epoch(told)) is not None:
        parts.append(f"{word if parts else 'epoch '}{epoch}")
    if left and is_number(seconds) and not words.is_over(record):
        parts.append(f"{output.duration(seconds).split()[0]} left")
    return " ".join(filter(None, parts))


def progress_line(record: RunRecord) -> str:
    """`62%, epoch 3/9, step 1200/2000, 12.3 steps/s, 4m 10s left`."""
    told = progress(record)
    fraction, rate, left = told.get("fraction"), told.get("rate"), told.get("left")
    parts = [f"{int(100 * fraction)}%"] if is_number(fraction) else []
    parts += reached(record)
    if told.get("stage") not in (None, "fit"):
        parts.append(f"in {told['stage']}")
    if is_number(rate):
        parts.append(f"{number(rate)} steps/s")
    if is_number(left) and not words.is_over(record):
        parts.append(f"{output.duration(left)} left")
    return ", ".join(parts)


def reached(record: RunRecord) -> list[str]:
    """`epoch 3/9`, `step 1200/2000`; as far as they are known."""
    told = progress(record)
    known = {"epoch": _epoch(told), "step": _of(told.get("step"), told.get("max_steps"))}
    return [f"{name} {text}" for name, text in known.items() if text is not None]


def metrics(record: RunRecord) -> str:
    """`val_loss 0.0123, train_loss 0.2`."""
    told = record.get("metrics") or progress(record).get("metrics")
    known = told.items() if isinstance(told, dict) else ()
    return ", ".join(f"{name} {number(value)}" for name, value in known if is_number(value))


def metric(told: Mapping[str, object]) -> str:
    """What a checkpoint was judged by: `val_loss 0.0123 (min)`; empty when nothing was monitored."""
    if not told.get("monitor"):
        return ""
    value = told.get("value")
    shown = number(value) if is_number(value) else "unknown"
    return f"{told['monitor']} {shown}" + (f" ({told['mode']})" if told.get("mode") else "")


def monitored(record: RunRecord) -> tuple[str, str] | None:
    """The metric that the run's checkpoints are judged by, and the best one's value; None when there is none."""
    known = record.get("checkpoints")
    for told in (known["best"], known["last"]) if known else ():
        value = told.get("value") if told else None
        if told and told.get("monitor") and is_number(value):
            return str(told["monitor"]), number(value)
    return None


def number(value: float) -> str:
    """As many digits as tell two trainings apart."""
    return f"{value:.5g}"


def _epoch(told: Reported) -> str | None:
    return _of(epochs.epoch(told), epochs.last_epoch(told))


def _of(part: object, whole: object) -> str | None:
    if not is_number(part):
        return None
    return f"{part:.10g}/{whole:.10g}" if is_number(whole) else f"{part:.10g}"
