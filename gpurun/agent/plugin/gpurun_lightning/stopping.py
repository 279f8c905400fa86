"""When a training is asked to stop: all ranks agree on the batch, a checkpoint is saved behind it, and the job ends.

The checkpoints lie in a folder of their own in the workspace, not beside those of a ModelCheckpoint: scripts look for the
newest or the best file there, and Lightning takes `last*.ckpt` there for its own.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from typing import Any, Dict, List, Optional

from . import lines, loops
from .say import say
from .told import STOP_FILE, STOP_FOLDER, STOPPED_FILE, Told

LOOK = 0.2  # seconds between two looks for the stop file
AGREE = 0.5  # seconds between two questions to all ranks, about: they count batches, for their clocks differ
MOST_BATCHES = 1000
PATIENCE = 20.0  # seconds that a stop waits for the last batch of an accumulated step

NO, WHEN_STEPPED, NOW = 0, 1, 2


class Stopped(SystemExit):
    """Ends the script behind a stop. As Lightning's own exception for SIGTERM, it passes by `except Exception`."""


class Stop:
    """Whether one was asked for. Rank zero alone looks and is signalled; the others are told."""

    def __init__(self, told: Told, leader: bool) -> None:
        self.file = told.file(STOP_FILE)
        self.leader = leader
        self.why: Optional[str] = None
        self.since = 0.0
        self.next_look = 0.0
        self.agreed = NO
        self.left = 1  # batches until all ranks look together again
        self.asked_at: Optional[float] = None
        self.batches = 1
        self.theirs: Any = None

    def listen(self) -> None:
        """To SIGTERM, in place of Lightning, which would end the fit without a checkpoint. The user's own handler is
        called all the same; Lightning puts it back when the fit is over."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._term)

    def _term(self, number: int, frame: Any) -> None:
        self._ask("SIGTERM")
        if callable(self.theirs):
            self.theirs(number, frame)

    def _ask(self, why: str) -> None:
        if self.why is None:
            self.why = why
            self.since = time.monotonic()

    def look(self) -> int:
        now = time.monotonic()
        if self.why is None and now >= self.next_look:
            self.next_look = now + LOOK
            if os.path.exists(self.file):
                self._ask("stop")
        if self.why is None:
            return NO
        return NOW if now > self.since + PATIENCE else WHEN_STEPPED

    def wanted(self, trainer: Any) -> int:
        """Called by all ranks at the same batch's end; the same answer for all."""
        if trainer.world_size == 1:
            return self.look()
        self.left -= 1
        if self.left <= 0:
            answer: List[int] = trainer.strategy.broadcast([self.look(), self._until_next()] if self.leader else [0, 1])
            self.agreed, self.batches = answer
            self.left = self.batches
        return self.agreed

    def _until_next(self) -> int:
        now = time.monotonic()
        taken = now - self.asked_at if self.asked_at is not None else None
        self.asked_at = now
        if not taken:
            return 1
        return max(1, min(MOST_BATCHES, 2 * self.batches, int(self.batches * AGREE / taken)))

    @property
    def code(self) -> int:
        """A TERM that gpurun did not send must not look like an end that the script came to."""
        return 0 if os.path.exists(self.file) else 128 + signal.SIGTERM


def path(told: Told, trainer: Any) -> str:
    name = "epoch=%d-step=%d.ckpt" % (trainer.current_epoch, trainer.global_step)
    return os.path.join(told.workspace, STOP_FOLDER, name)


def secure(file: str) -> None:
    """Onto the disk: Lightning's own save leaves that to luck, and a host that is stopped may be gone next."""
    for one in (file, os.path.dirname(file)):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def record(told: Told, trainer: Any, why: Optional[str], saved: Optional[str]) -> Dict[str, Any]:
    """What became of it. `saved` is the checkpoint, whole, relative to the workspace."""
    found = {
        "t": time.time(),
        "attempt": told.attempt,
        "checkpoint": saved,
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "lost_batches": 0,
        "why": why,
    }
    lines.replace(told.file(STOPPED_FILE), found)
    return found


def drop_earlier(told: Told, keep: str) -> None:
    """One that a later stop made worthless."""
    folder = os.path.dirname(keep)
    for name in os.listdir(folder):
        if name.endswith(".ckpt") and name != os.path.basename(keep) and not os.path.isdir(os.path.join(folder, name)):
            os.unlink(os.path.join(folder, name))


def end(trainer: Any, stop: Stop) -> None:
    """Raises Stopped; in a process that a strategy spawned, whose parent waits for an answer, ends the fit instead."""
    if multiprocessing.parent_process() is not None:
        trainer.should_stop = True
        trainer.limit_val_batches = 0
        return
    raise Stopped(stop.code)


def say_so(trainer: Any, saved: Optional[str], error: Optional[BaseException]) -> None:
    where = "epoch %d, step %d" % (trainer.current_epoch, trainer.global_step)
    if saved is not None:
        say("stopped at %s; saved %s" % (where, saved))
    else:
        say("stopped at %s; nothing could be saved: %s" % (where, json.dumps(str(error)) if error else "no fit runs"))


def may_end(trainer: Any, wanted: int) -> bool:
    return wanted == NOW or (wanted == WHEN_STEPPED and not loops.accumulates(trainer))
