"""Capture and restore the random states of this process: Python's, NumPy's, torch's, and that of its GPU.

A checkpoint stores them as tensors and plain values, because Lightning loads nothing else from a file that is not trusted.
"""

import random
import sys
from typing import Any, Dict, List, Sequence

import torch

State = Dict[str, Any]


def capture(*, gpu: bool = False, generators: Sequence[Any] = ()) -> State:
    """Return the states, in about 30 microseconds. `generators` are the torch generators of samplers."""
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
    for generator, generator_state in zip(generators, state["generators"]):
        generator.set_state(generator_state)


def packed(state: State) -> State:
    """Return the state as it is stored in a checkpoint, 10 KB."""
    version, words, gauss = state["python"]
    stored: State = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "torch": state["torch"],
        "generators": list(state["generators"]),
    }
    if "numpy" in state:
        name, keys, position, has_gauss, cached = state["numpy"]
        stored["numpy"] = [
            str(name),
            torch.tensor([int(key) for key in keys], dtype=torch.int64),
            int(position),
            int(has_gauss),
            float(cached),
        ]
    if "cuda" in state:
        stored["cuda"] = state["cuda"]
    return stored


def unpacked(stored: State) -> State:
    """Return the state from its stored form."""
    version, words, gauss = stored["python"]
    state: State = {
        "python": (version, tuple(words.tolist()), gauss),
        "torch": stored["torch"].cpu(),
        "generators": [each.cpu() for each in stored["generators"]],
    }
    if "numpy" in stored:
        name, keys, position, has_gauss, cached = stored["numpy"]
        state["numpy"] = (name, _words(keys), position, has_gauss, cached)
    if "cuda" in stored:
        state["cuda"] = stored["cuda"].cpu()
    return state


def _words(keys: Any) -> List[int]:
    numbers: List[int] = keys.tolist()
    return numbers
