"""In which order a loader brings its samples: noted down while it does, and begun in the middle when a training resumes.

`Order` stands before the sampler that a DataLoader draws from (its batch sampler, where it has one). It notes the random
states that the sampler began with; with these, and the number of batches that were trained on, a sampler can be brought to
the same place later without loading any data.
"""

from typing import Any, Callable, Dict, Iterator, List, Optional

from . import randomness

_OURS = {"inner", "number", "generators", "before", "first", "epoch", "replay", "started", "settle"}


class Order:
    """What it does not know itself is asked of the sampler, or set there: Lightning and users may look."""

    def __init__(
        self, inner: Any, number: int, generators: List[Any], settle: Callable[[randomness.State], None]
    ) -> None:
        self.inner = inner
        self.number = number  # of the loader, as they were made
        self.generators = generators
        self.settle = settle  # gives this process the random state that it goes on with, behind a replay
        self.before: Optional[randomness.State] = None  # as this pass over the samples was asked for
        self.first: Optional[randomness.State] = None  # as its first sample was
        self.epoch: Optional[int] = None  # of a sampler that is told the epoch
        self.replay: Optional[Dict[str, Any]] = None
        self.started: Callable[[Order], None] = _nothing  # called as a pass over the samples is asked for

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OURS:
            object.__setattr__(self, name, value)
        else:
            setattr(self.inner, name, value)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        self.started(self)
        return _Pass(self)

    def told_epoch(self) -> Optional[int]:
        found = [getattr(one, "epoch", None) for one in self._told_of_epochs()]
        return found[0] if found and isinstance(found[0], int) else None

    def tell_epoch(self, epoch: Optional[int]) -> None:
        for one in self._told_of_epochs() if epoch is not None else []:
            one.set_epoch(epoch)

    def _told_of_epochs(self) -> List[Any]:
        return [one for one in (self.inner, getattr(self.inner, "sampler", None)) if hasattr(one, "set_epoch")]

    def notes(self) -> Optional[Dict[str, Any]]:
        """For a checkpoint: None when no pass has begun."""
        if self.before is None or self.first is None:
            return None
        return {
            "before": randomness.packed(self.before),
            "first": randomness.packed(self.first),
            "epoch": self.epoch,
            "length": length(self),
        }


class _Pass:
    """One pass over the samples. Most samplers draw at the first sample, some when the pass is asked for."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.begun = False
        self.before = randomness.capture(generators=order.generators)
        self.replay = order.replay
        if self.replay is None:
            self.items = iter(order.inner)
            return
        order.tell_epoch(self.replay["epoch"])
        randomness.restore(self.replay["before"], order.generators)
        self.items = iter(order.inner)
        randomness.restore(self.before, order.generators)

    def __iter__(self) -> "_Pass":
        return self

    def __next__(self) -> Any:
        if not self.begun:
            self.begun = True
            self._begin()
        return next(self.items)

    def _begin(self) -> None:
        order, replay = self.order, self.replay
        if replay is None:
            order.before = self.before
            order.first = randomness.capture(generators=order.generators)
            order.epoch = order.told_epoch()
            return
        order.replay = None
        order.before, order.first, order.epoch = replay["before"], replay["first"], replay["epoch"]
        kept = randomness.capture(gpu=True)
        order.tell_epoch(replay["epoch"])
        randomness.restore(replay["first"], order.generators)
        for _ in range(replay["position"]):
            next(self.items, None)
        order.settle(kept)


def _nothing(order: Order) -> None:
    pass


def length(sized: Any) -> Optional[int]:
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return None


def generators_of(loader: Any) -> List[Any]:
    """The generators of torch that decide about this loader's order, always in the same sequence."""
    batches = getattr(loader, "batch_sampler", None)
    holders = [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    found: List[Any] = []
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if hasattr(generator, "get_state") and not any(generator is one for one in found):
            found.append(generator)
    return found
