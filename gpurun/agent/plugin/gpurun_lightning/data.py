"""Wrap the sampler of each loader of a fit in an `Order`, and remove it after the fit.

Lightning has no hook between the creation of a loader and its first use. So this replaces `process_dataloader`, which is called
at that moment, on the strategy of this fit, for this fit only.
"""

from typing import Any, Callable, Dict, List, Optional, Tuple

from torch.utils.data import IterableDataset

from . import loops, randomness
from .job_log import guarded
from .order import Order, generators_of, length

_INEXACT = "an epoch cannot be resumed in the middle of its data"


class Loaders:
    """The loaders of one fit. `saved` are the states of the loaders in the checkpoint that the fit resumes from."""

    def __init__(self, settle: Callable[[randomness.State], None]) -> None:
        self.settle = settle
        self.started: Callable[[Order], None] = lambda order: None
        self.orders: List[Tuple[Any, str, Order]] = []  # loader, name of its attribute, the wrapper
        self.saved: List[Optional[Dict[str, Any]]] = []
        self.count = 0
        self.strategy: Optional[Any] = None
        self.data_changed = False  # since the checkpoint
        self.has_unordered = False  # a loader whose position cannot be restored
        self.has_workers = False

    def attach(self, trainer: Any, callback: Any) -> None:
        process = trainer.strategy.process_dataloader

        def process_and_wrap(loader: Any) -> Any:
            processed = process(loader)
            if trainer.training and callback in trainer.callbacks:  # not while Lightning searches for a batch size
                self._wrap(processed)
            return processed

        trainer.strategy.process_dataloader = process_and_wrap
        self.strategy = trainer.strategy

    def drop_replays(self) -> None:
        """Forget the positions to restore: the epoch that they belong to is over."""
        for _, _, order in self.orders:
            order.replay = None

    def detach(self) -> None:
        if self.strategy is not None:
            vars(self.strategy).pop("process_dataloader", None)
            self.strategy = None
        for loader, name, order in self.orders:
            if getattr(loader, name, None) is order:
                object.__setattr__(loader, name, order.inner)
        self.orders = []

    @guarded(_INEXACT)
    def _wrap(self, loader: Any) -> None:
        number = self.count
        self.count += 1
        saved = self.saved[number] if number < len(self.saved) else None
        if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
            return  # Lightning saves and restores the position of such a loader
        name = "batch_sampler" if getattr(loader, "batch_sampler", None) is not None else "sampler"
        sampler = getattr(loader, name, None)
        if sampler is None or is_stream(loader):
            self.has_unordered = True
            return
        self.has_workers = self.has_workers or getattr(loader, "num_workers", 0) > 0
        generators = generators_of(loader)
        if isinstance(sampler, Order):
            order = sampler
        else:
            order = Order(sampler, number, generators, self.settle)
            # A DataLoader refuses to set it, because an iterator may be in use; here there is none yet.
            object.__setattr__(loader, name, order)
        order.started = self.started
        self.orders.append((loader, name, order))
        if saved is not None:
            if saved["length"] == length(order) and len(saved["before"]["generators"]) == len(generators):
                order.replay = saved
            else:
                self.data_changed = True

    def notes(self, trainer: Any, done: int) -> List[Optional[Dict[str, Any]]]:
        """Return the state of each loader, in the order of creation; `done` batches of this epoch were trained."""
        cycles = loops.cycles(trainer)
        states: List[Optional[Dict[str, Any]]] = []
        current = {id(loader) for loader in loops.loaders(trainer)}
        for loader, _, order in self.orders:
            if current and id(loader) not in current:
                continue  # of an earlier epoch: loaders can be created again
            notes = order.notes()
            if notes is not None:
                notes["position"] = position(done, notes["length"], cycles)
            states.append(notes)
        return states


def position(done: int, size: Optional[int], cycles: bool) -> int:
    """Return how many batches of a loader's latest pass were used: a shorter loader starts again beside a longer one."""
    if not size or done <= size:
        return done
    return (done - 1) % size + 1 if cycles else size


def is_stream(loader: Any) -> bool:
    """Return whether the dataset is iterable: it has its own order, or none."""
    return isinstance(getattr(loader, "dataset", None), IterableDataset)
