"""The random states of this process: Python's, NumPy's, torch's, and that of its GPU.

In a checkpoint they are tensors and plain values: Lightning loads nothing else without being asked to trust it.
"""

import random
import sys
from typing import Any, Dict, List, Sequence

import torch

State = Dict[str, Any]


def capture(*, gpu: bool = False, generators: Sequence[Any] = ()) -> State:
    """Takes some 30 microseconds; as it is, not as it is kept. `generators` are torch's own, of samplers."""
    state: State = {"python": random.getstate(), "torch": torch.get_rng_state()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["numpy"] = numpy.random.get_state()
    if gpu and torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    state["generators"] = [generator.get_state() for generator in generators]
    return state


def restore(state: State, generators: Sequence[Any] = ()) -> None:
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in state:
        numpy.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    for generator, one in zip(generators, state["generators"]):
        generator.set_state(one)


def packed(state: State) -> State:
    """As a checkpoint keeps it, 10 KB."""
    version, words, gauss = state["python"]
    kept: State = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "torch": state["torch"],
        "generators": list(state["generators"]),
    }
    if "numpy" in state:
        name, keys, position, has_gauss, cached = state["numpy"]
        kept["numpy"] = [
            str(name),
            torch.tensor([int(key) for key in keys], dtype=torch.int64),
            int(position),
            int(has_gauss),
            float(cached),
        ]
    if "cuda" in state:
        kept["cuda"] = state["cuda"]
    return kept


def unpacked(kept: State) -> State:
    version, words, gauss = kept["python"]
    state: State = {
        "python": (version, tuple(words.tolist()), gauss),
        "torch": kept["torch"].cpu(),
        "generators": [one.cpu() for one in kept["generators"]],
    }
    if "numpy" in kept:
        name, keys, position, has_gauss, cached = kept["numpy"]
        state["numpy"] = (name, _words(keys), position, has_gauss, cached)
    if "cuda" in kept:
        state["cuda"] = kept["cuda"].cpu()
    return state


def _words(keys: Any) -> List[int]:
    found: List[int] = keys.tolist()
    return found
