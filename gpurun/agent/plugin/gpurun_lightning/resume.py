"""Save and restore everything that a checkpoint needs to resume a training as if it had never been interrupted.

Lightning keeps weights, optimizers and counters. Missing are where the data was, the random states, and the metrics of the
epoch so far; these are added to every checkpoint, a set for each rank, under a key of their own.
"""

import os
import pickle
import sys
import weakref
from typing import Any, Dict, List, Optional, Set

import torch

from . import lines, loops, randomness
from .data import Loaders
from .order import Order
from .say import say, say_once
from .told import Told

KEY = "gpurun"
VERSION = 1


def state(trainer: Any, loaders: Optional[Loaders]) -> Dict[str, Any]:
    """Of this rank, now."""
    ended = loops.batch_has_ended(trainer)
    orders = [order for _, _, order in loaders.orders] if loaders is not None else []
    is_open = loops.epoch_is_open(trainer)
    metrics = {str(name): lines.number(value) for name, value in list(loops.metrics(trainer).items())}
    return {
        "random": randomness.packed(randomness.capture(gpu=True)),
        "generators": [[one.get_state() for one in order.generators] for order in orders],
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
    """`together`: all ranks are here. An exception may have come to one alone, which would wait for the others forever."""
    ranks: List[Any] = [mine]
    if together and trainer.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = [None] * trainer.world_size
        torch.distributed.all_gather_object(ranks, mine)
    return {"version": VERSION, "ranks": ranks}


class Resumed:
    """A fit that goes on. The random states are given back as late as can be: hooks of others may draw before."""

    def __init__(self, state: Dict[str, Any], epoch: int) -> None:
        self.random = randomness.unpacked(state["random"])
        self.generators = [[one.cpu() for one in states] for states in state["generators"]]  # a list each loader
        self.open = bool(state["open"])
        self.ends = bool(state["ends"])
        self.done = int(state["done"])
        self.metrics: Dict[str, float] = state["metrics"]
        self.loaders = [notes and unpacked(notes) for notes in state["loaders"]]
        self.epoch = epoch
        self.told: Set[int] = set()  # the loaders whose own generators were set
        self.given = False  # the random states; for an epoch's end, as its next pass over the data is asked for
        self.training = False  # on_train_start is over
        self.replayed = False  # since then
        self.validated = False

    def passes(self, order: Order) -> None:
        """A pass over a loader is asked for, the first of this fit."""
        if self.open:
            return
        order.tell_epoch(self.epoch)
        if not self.given:
            self.give()
        if order.number < len(self.generators) and order.number not in self.told:
            self.told.add(order.number)
            for generator, state in zip(order.generators, self.generators[order.number]):
                generator.set_state(state)

    def give(self) -> None:
        self.given = True
        randomness.restore(self.random)

    def settle(self, kept: randomness.State) -> None:
        """Behind a replay of the order: the state of the checkpoint, unless something has been drawn from it already."""
        if self.training and not self.replayed and not self.validated:
            randomness.restore(self.random)
        else:
            randomness.restore(kept)
        self.replayed = self.replayed or self.training

    def start(self, trainer: Any) -> None:
        """on_train_start: the loaders are there, and with workers have begun."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.metrics.items()})
        if self.open:
            loops.counts_as_running(trainer)
        elif self.ends:
            loops.update_plateaus(trainer, self.epoch - 1)
        if self.open or not self.given:
            self.give()
        self.training = True

    def epoch_starts(self, trainer: Any) -> None:
        """One that did not begin before: only for a checkpoint of an epoch's end."""
        if loops.begins_the_data_again(trainer):
            self.give()

    def first_batch(self) -> None:
        """Its data is here. Workers drew none of this process's numbers for it; a loader without them may have."""
        if self.open and not self.replayed and not self.validated:
            self.give()


def resumed(trainer: Any, checkpoint: Dict[str, Any]) -> Optional[Resumed]:
    """From a checkpoint that is being loaded for a fit; its loops are mended. None when it knows nothing of us."""
    kept = checkpoint.get(KEY)
    if not isinstance(kept, dict) or kept.get("version") != VERSION:
        return None
    ranks = kept["ranks"]
    mine = ranks[trainer.global_rank] if len(ranks) == trainer.world_size else ranks[0]
    if mine["batch_ended"] and "loops" in checkpoint:
        loops.mend(checkpoint["loops"], stepped=mine["stepped"], validates=mine["validates"])
    if len(ranks) != trainer.world_size:
        say_once(
            "the checkpoint is of %d processes and this training has %d: it goes on, but not with exactly the data and "
            "random numbers that it would have had" % (len(ranks), trainer.world_size)
        )
        return None
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] if "loops" in checkpoint else 0
    return Resumed(mine, int(epoch))


def unpacked(notes: Dict[str, Any]) -> Dict[str, Any]:
    before, first = (randomness.unpacked(notes[name]) for name in ("before", "first"))
    return {**notes, "before": before, "first": first}


def tell(trainer: Any, resumed: Resumed, loaders: Optional[Loaders]) -> None:
    """In the log, once, where it goes on, and what of it cannot be exact."""
    where = "epoch %d, step %d" % (trainer.current_epoch, trainer.global_step)
    say("the training goes on at %s%s" % (where, ", batch %d of the epoch" % resumed.done if resumed.open else ""))
    if not resumed.open or loaders is None or resumed.done == 0:
        return
    if loaders.loose:
        say("its data has no order that can be found again: the epoch's samples are not exactly those that are left")
    if loaders.unlike:
        say(
            "its data is not what it was when the checkpoint was saved: the epoch's samples are not those that are left"
        )
    if loaders.workers:
        say(
            "its data goes on in the same order; random numbers that are drawn inside DataLoader workers are other ones"
        )


# Which checkpoint.

_waiting: "weakref.WeakSet[Any]" = weakref.WeakSet()
_went_on: List[bool] = []
_trusted: List[str] = []
TRUST = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def prepare(kind: Any, told: Told) -> None:
    """A Trainer of class `kind` is being made: its first fit goes on from the checkpoint that the run was given.

    Nobody tells a callback of its Trainer before `fit` has chosen the checkpoint, but the Trainer that asks for callbacks
    stands on the stack. What is set there is public, and what a script passes to `fit` comes before it.
    """
    if told.resume is None or _went_on:
        return
    if not os.path.isfile(told.resume):
        say_once("there is no checkpoint %s to go on from: the training begins anew" % told.resume)
        return
    trainer = _in_the_making(kind)
    if trainer is None:
        say_once("this version of Lightning cannot be told to go on from %s: the training begins anew" % told.resume)
        return
    trust(told.resume)
    trainer.ckpt_path = told.resume
    _waiting.add(trainer)


def begun(trainer: Any) -> None:
    """The first fit of the script trains: no other one goes on from that checkpoint, nor one that it starts beside."""
    _went_on.append(True)
    os.environ.pop("GPURUN_RESUME", None)
    if _trusted:
        _trusted.clear()
        os.environ.pop(TRUST, None)
    for other in list(_waiting):
        if other is not trainer:
            other.ckpt_path = None
            _waiting.discard(other)


def ended(trainer: Any) -> None:
    """The first fit is over: a second one, or a test, of this Trainer does not load that checkpoint again."""
    if _went_on and trainer in _waiting:
        _waiting.discard(trainer)
        trainer.ckpt_path = None


def _in_the_making(kind: Any) -> Optional[Any]:
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, kind):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None


def trust(path: str) -> None:
    """The run's own checkpoint may hold objects of the script, which torch refuses to load unless it is told to.

    It is told until the fit has begun.
    """
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        if TRUST not in os.environ:
            os.environ[TRUST] = "1"
            _trusted.append(path)
    except (OSError, RuntimeError, TypeError, ValueError):  # an old torch, or no zip: it will be tried as it is
        pass
