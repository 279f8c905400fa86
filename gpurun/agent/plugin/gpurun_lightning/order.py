"""Record the order of a loader's samples, and start in the middle of it when a training resumes.

`Order` wraps the sampler of a DataLoader (its batch sampler if it has one) and records the random states before each pass.
From these and the number of trained batches, a sampler can be advanced to the same place later without loading data.
"""

from typing import Any, Callable, Dict, Iterator, List, Optional

from . import randomness

_OURS = {"inner", "number", "generators", "before", "first", "epoch", "replay", "started", "settle"}


class Order:
    """A sampler's wrapper. Other attributes are read from the sampler and set on it, because Lightning and users use them."""

    def __init__(
        self, inner: Any, number: int, generators: List[Any], settle: Callable[[randomness.State], None]
    ) -> None:
        self.inner = inner
        self.number = number  # of the loader, in the order of their creation
        self.generators = generators
        self.settle = settle  # sets the random state of this process after a replay
        self.before: Optional[randomness.State] = None  # the random state when this pass was requested
        self.first: Optional[randomness.State] = None  # the random state when its first sample was requested
        self.epoch: Optional[int] = None  # of a sampler with `set_epoch`
        self.replay: Optional[Dict[str, Any]] = None
        self.started: Callable[[Order], None] = _nothing  # called when a pass is requested

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

    def sampler_epoch(self) -> Optional[int]:
        epochs = [getattr(sampler, "epoch", None) for sampler in self._epoch_samplers()]
        return epochs[0] if epochs and isinstance(epochs[0], int) else None

    def set_sampler_epoch(self, epoch: Optional[int]) -> None:
        for sampler in self._epoch_samplers() if epoch is not None else []:
            sampler.set_epoch(epoch)

    def _epoch_samplers(self) -> List[Any]:
        samplers = (self.inner, getattr(self.inner, "sampler", None))
        return [sampler for sampler in samplers if hasattr(sampler, "set_epoch")]

    def notes(self) -> Optional[Dict[str, Any]]:
        """Return the state for a checkpoint, or None when no pass has begun."""
        if self.before is None or self.first is None:
            return None
        return {
            "before": randomness.packed(self.before),
            "first": randomness.packed(self.first),
            "epoch": self.epoch,
            "length": length(self),
        }


class _Pass:
    """One pass over the samples. Most samplers draw random numbers at the first sample, some when the pass is requested."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.begun = False
        self.before = randomness.capture(generators=order.generators)
        self.replay = order.replay
        if self.replay is None:
            self.items = iter(order.inner)
            return
        order.set_sampler_epoch(self.replay["epoch"])
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
            order.epoch = order.sampler_epoch()
            return
        order.replay = None
        order.before, order.first, order.epoch = replay["before"], replay["first"], replay["epoch"]
        kept = randomness.capture(gpu=True)
        order.set_sampler_epoch(replay["epoch"])
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
    """Return the torch generators that determine this loader's order, always in the same sequence."""
    batches = getattr(loader, "batch_sampler", None)
    holders = [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    generators: List[Any] = []
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if hasattr(generator, "get_state") and not any(generator is other for other in generators):
            generators.append(generator)
    return generators
