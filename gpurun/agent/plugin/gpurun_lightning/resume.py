"""Save and restore everything that a checkpoint needs to resume a training as if it had never been interrupted.

Lightning saves weights, optimizers and counters. The plugin adds the position in the data, the random states and the metrics of
the epoch so far to every checkpoint, for each rank, under a key of its own.
"""

import os
import pickle
import sys
import weakref
from typing import Any, Dict, List, Optional, Set

import torch

from . import lines, loops, randomness
from .data import Loaders
from .job_log import print_line, print_once
from .order import Order
from .settings import Settings

KEY = "gpurun"
VERSION = 1


def state(trainer: Any, loaders: Optional[Loaders]) -> Dict[str, Any]:
    """Return the state of this rank."""
    ended = loops.batch_has_ended(trainer)
    orders = [order for _, _, order in loaders.orders] if loaders is not None else []
    is_open = loops.epoch_is_open(trainer)
    metrics = {str(name): lines.number(value) for name, value in list(loops.metrics(trainer).items())}
    return {
        "random": randomness.packed(randomness.capture(gpu=True)),
        "generators": [[generator.get_state() for generator in order.generators] for order in orders],
        "open": is_open,
        "ends": loops.epoch_ends(trainer),
        "batch_ended": ended,
        "stepped": ended and not loops.accumulates(trainer),
        "validates": ended and loops.validates_next(trainer),
        "done": loops.batches_done(trainer),
        "loaders": loaders.notes(trainer, loops.batches_done(trainer)) if loaders is not None and is_open else [],
        "metrics": {name: value for name, value in metrics.items() if value is not None},
    }


def of_all_ranks(trainer: Any, mine: Dict[str, Any], *, together: bool) -> Dict[str, Any]:
    """Return the states of all ranks. Without `together`, only this rank's: after an exception the other ranks may not answer."""
    ranks: List[Any] = [mine]
    if together and trainer.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = [None] * trainer.world_size
        torch.distributed.all_gather_object(ranks, mine)
    return {"version": VERSION, "ranks": ranks}


class Resumed:
    """A fit that resumes. The random states are restored as late as possible, because other hooks may draw numbers before."""

    def __init__(self, state: Dict[str, Any], epoch: int) -> None:
        self.random = randomness.unpacked(state["random"])
        self.generators = [[each.cpu() for each in states] for states in state["generators"]]  # a list each loader
        self.open = bool(state["open"])
        self.ends = bool(state["ends"])
        self.done = int(state["done"])
        self.metrics: Dict[str, float] = state["metrics"]
        self.loaders = [notes and unpacked(notes) for notes in state["loaders"]]
        self.epoch = epoch
        self.restored_loaders: Set[int] = set()  # the loaders whose own generators were set
        self.restored = False  # the random states; at an epoch's end when its next pass over the data is requested
        self.training = False  # on_train_start is over
        self.replayed = False  # since then
        self.validated = False

    def start_pass(self, order: Order) -> None:
        """The first pass of this fit over a loader is requested."""
        if self.open:
            return
        order.set_sampler_epoch(self.epoch)
        if not self.restored:
            self.restore()
        if order.number < len(self.generators) and order.number not in self.restored_loaders:
            self.restored_loaders.add(order.number)
            for generator, state in zip(order.generators, self.generators[order.number]):
                generator.set_state(state)

    def restore(self) -> None:
        self.restored = True
        randomness.restore(self.random)

    def settle(self, kept: randomness.State) -> None:
        """Set the random state after a replay: that of the checkpoint, unless numbers were drawn from it already."""
        if self.training and not self.replayed and not self.validated:
            randomness.restore(self.random)
        else:
            randomness.restore(kept)
        self.replayed = self.replayed or self.training

    def start(self, trainer: Any) -> None:
        """Run in on_train_start, when the loaders exist and their workers have started."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.metrics.items()})
        if self.open:
            loops.mark_not_restarting(trainer)
        elif self.ends:
            loops.update_plateaus(trainer, self.epoch - 1)
        if self.open or not self.restored:
            self.restore()
        self.training = True

    def start_epoch(self, trainer: Any) -> None:
        """A new epoch starts, after a checkpoint of an epoch's end."""
        if loops.requests_data_twice(trainer):
            self.restore()

    def first_batch(self) -> None:
        """The first batch is loaded. Without workers, loading it may have drawn this process's random numbers."""
        if self.open and not self.replayed and not self.validated:
            self.restore()


def resumed(trainer: Any, checkpoint: Dict[str, Any]) -> Optional[Resumed]:
    """Return the resumed fit of a checkpoint that is being loaded, and correct its loops; None without the plugin's state."""
    kept = checkpoint.get(KEY)
    if not isinstance(kept, dict) or kept.get("version") != VERSION:
        return None
    ranks = kept["ranks"]
    mine = ranks[trainer.global_rank] if len(ranks) == trainer.world_size else ranks[0]
    if mine["batch_ended"] and "loops" in checkpoint:
        loops.complete_batch(checkpoint["loops"], stepped=mine["stepped"], validates=mine["validates"])
    if len(ranks) != trainer.world_size:
        print_once(
            "the checkpoint is of %d processes and this training has %d: it continues, but not with exactly the same data "
            "and random numbers as without the interruption" % (len(ranks), trainer.world_size)
        )
        return None
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] if "loops" in checkpoint else 0
    return Resumed(mine, int(epoch))


def unpacked(notes: Dict[str, Any]) -> Dict[str, Any]:
    before, first = (randomness.unpacked(notes[name]) for name in ("before", "first"))
    return {**notes, "before": before, "first": first}


def print_resume(trainer: Any, resumed: Resumed, loaders: Optional[Loaders]) -> None:
    """Print where the training resumes, and what is not exact."""
    where = "epoch %d, step %d" % (trainer.current_epoch, trainer.global_step)
    print_line(
        "the training continues at %s%s" % (where, ", batch %d of the epoch" % resumed.done if resumed.open else "")
    )
    if not resumed.open or loaders is None or resumed.done == 0:
        return
    if loaders.has_unordered:
        print_line("the order of its data cannot be restored: the epoch's samples are not exactly the remaining ones")
    if loaders.data_changed:
        print_line(
            "its data has changed since the checkpoint was saved: the epoch's samples are not the remaining ones"
        )
    if loaders.has_workers:
        print_line("its data continues in the same order; random numbers drawn inside DataLoader workers differ")


# Which checkpoint.

_waiting_trainers: "weakref.WeakSet[Any]" = weakref.WeakSet()
_has_resumed: List[bool] = []
_trusted_files: List[str] = []
TRUST = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def prepare(trainer_class: Any, settings: Settings) -> None:
    """Let the first fit of the Trainer that is being created resume from the run's checkpoint.

    A callback gets its Trainer only after `fit` has chosen the checkpoint. But the Trainer that requests the callbacks is on
    the stack. Its attribute `ckpt_path` is public, and a path that the script passes to `fit` overrides it.
    """
    if settings.resume is None or _has_resumed:
        return
    if not os.path.isfile(settings.resume):
        print_once("the checkpoint %s does not exist: the training starts from the beginning" % settings.resume)
        return
    trainer = _trainer_on_stack(trainer_class)
    if trainer is None:
        print_once(
            "gpurun cannot resume from %s with this version of Lightning: the training starts from the beginning"
            % settings.resume
        )
        return
    trust(settings.resume)
    trainer.ckpt_path = settings.resume
    _waiting_trainers.add(trainer)


def note_fit_started(trainer: Any) -> None:
    """The first fit of the script has started: no later fit and no child process may resume from that checkpoint."""
    _has_resumed.append(True)
    os.environ.pop("GPURUN_RESUME", None)
    if _trusted_files:
        _trusted_files.clear()
        os.environ.pop(TRUST, None)
    for other in list(_waiting_trainers):
        if other is not trainer:
            other.ckpt_path = None
            _waiting_trainers.discard(other)


def note_fit_ended(trainer: Any) -> None:
    """The first fit has ended: a second fit, or a test, of this Trainer must not load that checkpoint again."""
    if _has_resumed and trainer in _waiting_trainers:
        _waiting_trainers.discard(trainer)
        trainer.ckpt_path = None


def _trainer_on_stack(trainer_class: Any) -> Optional[Any]:
    frame = sys._getframe(1)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, trainer_class):
            return candidate
        frame = frame.f_back  # type: ignore[assignment]
    return None


def trust(path: str) -> None:
    """Let torch load the run's own checkpoint although it may hold objects of the script, until the fit has started."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        if TRUST not in os.environ:
            os.environ[TRUST] = "1"
            _trusted_files.append(path)
    except (
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # an old torch, or not a zip: Lightning tries to load it anyway
        pass
