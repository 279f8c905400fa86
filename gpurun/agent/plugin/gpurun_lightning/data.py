"""The loaders of a fit: each gets an `Order` before its sampler, which is taken away when the fit is over.

There is no hook between the making of a loader and its first use, so this hangs itself on the strategy's own
`process_dataloader`, which is called right then, on this one strategy and for one fit.
"""

from typing import Any, Callable, Dict, List, Optional, Tuple

from torch.utils.data import IterableDataset

from . import loops, randomness
from .order import Order, generators_of, length
from .say import guarded

_INEXACT = "the data of an epoch cannot be gone on with in the middle"


class Loaders:
    """Of one fit. `wanted` are the notes of a checkpoint that it goes on from, a loader each."""

    def __init__(self, settle: Callable[[randomness.State], None]) -> None:
        self.settle = settle
        self.started: Callable[[Order], None] = lambda order: None
        self.orders: List[Tuple[Any, str, Order]] = []  # loader, which of its attributes, what stands there
        self.wanted: List[Optional[Dict[str, Any]]] = []
        self.taken = 0
        self.strategy: Optional[Any] = None
        self.unlike = False  # the checkpoint's data were others
        self.loose = False  # a loader whose place cannot be found again
        self.workers = False

    def hang_on(self, trainer: Any, callback: Any) -> None:
        process = trainer.strategy.process_dataloader

        def processed(loader: Any) -> Any:
            made = process(loader)
            if trainer.training and callback in trainer.callbacks:  # not while a batch size is looked for
                self._take(made)
            return made

        trainer.strategy.process_dataloader = processed
        self.strategy = trainer.strategy

    def begin_anew(self) -> None:
        """What was to be gone on with is over: a pass that nobody asked for any more."""
        for _, _, order in self.orders:
            order.replay = None

    def let_go(self) -> None:
        if self.strategy is not None:
            vars(self.strategy).pop("process_dataloader", None)
            self.strategy = None
        for loader, name, order in self.orders:
            if getattr(loader, name, None) is order:
                object.__setattr__(loader, name, order.inner)
        self.orders = []

    @guarded(_INEXACT)
    def _take(self, loader: Any) -> None:
        number = self.taken
        self.taken += 1
        wanted = self.wanted[number] if number < len(self.wanted) else None
        if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
            return  # it keeps its own place, and Lightning sees to that
        name = "batch_sampler" if getattr(loader, "batch_sampler", None) is not None else "sampler"
        sampler = getattr(loader, name, None)
        if sampler is None or is_stream(loader):
            self.loose = True
            return
        self.workers = self.workers or getattr(loader, "num_workers", 0) > 0
        generators = generators_of(loader)
        if isinstance(sampler, Order):
            order = sampler
        else:
            order = Order(sampler, number, generators, self.settle)
            # A DataLoader lets nobody set it, for an iterator may be under way; there is none yet.
            object.__setattr__(loader, name, order)
        order.started = self.started
        self.orders.append((loader, name, order))
        if wanted is not None:
            if wanted["length"] == length(order) and len(wanted["before"]["generators"]) == len(generators):
                order.replay = wanted
            else:
                self.unlike = True

    def notes(self, trainer: Any, done: int) -> List[Optional[Dict[str, Any]]]:
        """A loader each, in the sequence in which they were made; `done` batches of this epoch were trained on."""
        cycles = loops.cycles(trainer)
        found: List[Optional[Dict[str, Any]]] = []
        current = {id(loader) for loader in loops.loaders(trainer)}
        for loader, _, order in self.orders:
            if current and id(loader) not in current:
                continue  # of an earlier epoch: loaders can be made anew
            notes = order.notes()
            if notes is not None:
                notes["position"] = position(done, notes["length"], cycles)
            found.append(notes)
        return found


def position(done: int, size: Optional[int], cycles: bool) -> int:
    """How many batches of the latest pass over a loader were used: a shorter one begins anew beside a longer one."""
    if not size or done <= size:
        return done
    return (done - 1) % size + 1 if cycles else size


def is_stream(loader: Any) -> bool:
    """An iterable dataset has an order of its own, or none."""
    return isinstance(getattr(loader, "dataset", None), IterableDataset)
