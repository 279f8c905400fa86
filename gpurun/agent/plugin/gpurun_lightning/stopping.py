"""Stop a training on request: all ranks agree on a batch, a checkpoint is saved after it, and the job ends.

The checkpoints have a folder of their own in the workspace, because scripts look for the newest or best file in the folder of
a ModelCheckpoint, and Lightning uses every `last*.ckpt` there.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from typing import Any, Dict, List, Optional

from . import lines, loops
from .job_log import print_line
from .settings import STOP_FILE, STOP_FOLDER, STOPPED_FILE, Settings

CHECK_INTERVAL = 0.2  # seconds between two checks for the stop file
AGREE_INTERVAL = 0.5  # seconds, roughly, between two broadcasts; ranks count batches, because their clocks differ
MAX_BATCHES = 1000
ACCUMULATION_TIMEOUT = 20.0  # seconds that a stop waits for the last batch of an accumulated step

NO, AFTER_STEP, NOW = 0, 1, 2


class Stopped(SystemExit):
    """Ends the script after a stop. Like Lightning's own exception for SIGTERM, `except Exception` does not catch it."""


class Stop:
    """The request to stop. Only rank zero checks the file and gets the signal; it broadcasts to the others."""

    def __init__(self, settings: Settings, leader: bool) -> None:
        self.file = settings.file(STOP_FILE)
        self.leader = leader
        self.reason: Optional[str] = None
        self.since = 0.0
        self.next_check = 0.0
        self.agreed = NO
        self.left = 1  # batches until the next broadcast
        self.last_broadcast: Optional[float] = None
        self.batches = 1
        self.user_handler: Any = None

    def handle_sigterm(self) -> None:
        """Handle SIGTERM instead of Lightning, which would end the fit without a checkpoint.

        The user's own handler is called too; Lightning restores it after the fit.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: Any) -> None:
        self._request("SIGTERM")
        if callable(self.user_handler):
            self.user_handler(number, frame)

    def _request(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self.since = time.monotonic()

    def check(self) -> int:
        """Return NO, AFTER_STEP or NOW, on rank zero."""
        now = time.monotonic()
        if self.reason is None and now >= self.next_check:
            self.next_check = now + CHECK_INTERVAL
            if os.path.exists(self.file):
                self._request("stop")
        if self.reason is None:
            return NO
        return NOW if now > self.since + ACCUMULATION_TIMEOUT else AFTER_STEP

    def agree(self, trainer: Any) -> int:
        """Return the same answer on all ranks, which call this at the end of the same batch."""
        if trainer.world_size == 1:
            return self.check()
        self.left -= 1
        if self.left <= 0:
            agreed: List[int] = trainer.strategy.broadcast(
                [self.check(), self._batches_until_next()] if self.leader else [0, 1]
            )
            self.agreed, self.batches = agreed
            self.left = self.batches
        return self.agreed

    def _batches_until_next(self) -> int:
        now = time.monotonic()
        taken = now - self.last_broadcast if self.last_broadcast is not None else None
        self.last_broadcast = now
        if not taken:
            return 1
        return max(1, min(MAX_BATCHES, 2 * self.batches, int(self.batches * AGREE_INTERVAL / taken)))

    @property
    def exit_code(self) -> int:
        """Not 0 after a TERM that gpurun did not send, which must not look like a success of the script."""
        return 0 if os.path.exists(self.file) else 128 + signal.SIGTERM


def checkpoint_path(settings: Settings, trainer: Any) -> str:
    name = "epoch=%d-step=%d.ckpt" % (trainer.current_epoch, trainer.global_step)
    return os.path.join(settings.workspace, STOP_FOLDER, name)


def flush_to_disk(file: str) -> None:
    """fsync the file and its folder: Lightning's save does not, and the host may be switched off next."""
    for path in (file, os.path.dirname(file)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def record(settings: Settings, trainer: Any, reason: Optional[str], saved: Optional[str]) -> Dict[str, Any]:
    """Write how the stop ended. `saved` is the complete checkpoint, relative to the workspace."""
    outcome = {
        "t": time.time(),
        "attempt": settings.attempt,
        "checkpoint": saved,
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "lost_batches": 0,
        "why": reason,
    }
    lines.replace(settings.file(STOPPED_FILE), outcome)
    return outcome


def remove_earlier(settings: Settings, keep: str) -> None:
    """Remove the checkpoints of earlier stops."""
    folder = os.path.dirname(keep)
    for name in os.listdir(folder):
        if name.endswith(".ckpt") and name != os.path.basename(keep) and not os.path.isdir(os.path.join(folder, name)):
            os.unlink(os.path.join(folder, name))


def end(trainer: Any, stop: Stop) -> None:
    """Raise Stopped. In a process that a strategy spawned, end the fit instead, because the parent waits for its result."""
    if multiprocessing.parent_process() is not None:
        trainer.should_stop = True
        trainer.limit_val_batches = 0
        return
    raise Stopped(stop.exit_code)


def print_outcome(trainer: Any, saved: Optional[str], error: Optional[BaseException]) -> None:
    where = "epoch %d, step %d" % (trainer.current_epoch, trainer.global_step)
    if saved is not None:
        print_line("stopped at %s; saved %s" % (where, saved))
    else:
        print_line(
            "stopped at %s; nothing could be saved: %s" % (where, json.dumps(str(error)) if error else "no fit runs")
        )


def may_end(trainer: Any, request: int) -> bool:
    return request == NOW or (request == AFTER_STEP and not loops.accumulates(trainer))
