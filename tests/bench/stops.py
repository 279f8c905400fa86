"""Stops at random moments of a training: none may lose a batch, and what goes on must end with the very same weights.

And what the plugin costs a step. No host is needed: the training runs here, as the wrapper would start it.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.plugin.conftest import Job, Zygote

FLAGS = ("train.py", "--val-interval", "5", "--plateau", "--sleep", "0.02")


def at_random(count: int, seed: int, zygote: Zygote, folder: Path) -> str:
    """`count` stops of trainings of 30 steps, each at a moment of its own. What came of it, in a line."""
    drawn = random.Random(seed)
    Job(folder / "warm", zygote).train(*FLAGS)  # it waits for the imports, which must not count in the time below
    whole = Job(folder / "whole", zygote)
    began = time.monotonic()
    whole.train(*FLAGS)
    taken = time.monotonic() - began
    stops, again, other = 0, 0, 0
    while stops < count:
        broken = Job(folder / f"broken-{stops}", zygote)
        stops += _until_through(broken, drawn, taken)
        again += len(broken.seen()) - len(whole.seen())
        other += (broken.weights(), broken.seen()) != (whole.weights(), whole.seen())
        shutil.rmtree(broken.folder)
    return f"{stops} stops at random moments: {again} batches done again, {other} trainings that ended otherwise"


def _until_through(job: Job, drawn: random.Random, taken: float) -> int:
    """How often it was stopped."""
    stops = 0
    resume = None
    while True:
        training = job.start(*FLAGS, resume=resume)
        time.sleep(drawn.uniform(0, taken))
        (job.out / "stop").touch()
        training.wait()
        if (job.workspace / "weights").exists():
            return stops
        (job.out / "stop").unlink()
        stopped = job.out / "stopped.json"
        if stopped.exists():
            resume = job.stopped()["checkpoint"]
        stops += 1
        print(f"... {stops}: stopped at {resume}", flush=True)


def cost(zygote: Zygote, folder: Path, repeats: int = 3) -> str:
    """What the plugin takes a step, in a training whose steps do next to nothing."""
    told = [Job(folder / f"cost-{turn}", zygote).train("steps.py") for turn in range(repeats)]
    hooks, steps, seconds = (min(_figure(name, said) for said in told) for name in ("HOOKS", "STEPS", "SECONDS"))
    return (
        f"the plugin's hooks take {hooks / steps * 1e6:.1f} us a step, of {seconds / steps * 1e6:.0f} us of a training "
        f"that does next to nothing: 0.5% of a step of {hooks / steps * 200 * 1e3:.1f} ms"
    )


def _figure(name: str, said: str) -> float:
    return float(said.rpartition(f"{name} ")[2].split()[0])


def measure(count: int, seed: int) -> Iterator[str]:
    """A line for each figure."""
    zygote = Zygote()
    try:
        with tempfile.TemporaryDirectory(prefix="gpurun-stops-") as folder:
            yield cost(zygote, Path(folder))
            yield at_random(count, seed, zygote, Path(folder))
    finally:
        zygote.close()
