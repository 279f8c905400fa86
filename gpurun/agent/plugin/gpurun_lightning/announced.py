"""What the ModelCheckpoints of this process know of their files."""

import os
from typing import Any, Dict, Iterable, List

from . import lines
from .ledger import Announced


def announced(trainers: Iterable[Any]) -> Announced:
    """By real path. Lightning's names are read as they stand, while the training goes on."""
    found: Announced = {}
    for callback in _checkpoints(trainers):
        monitor = getattr(callback, "monitor", None)
        best, last = _real(callback, "best_model_path"), _real(callback, "last_model_path")
        scores = {os.path.realpath(path): score for path, score in dict(callback.best_k_models).items()}
        if last and last not in scores:
            scores[last] = getattr(callback, "current_score", None)
        if monitor is None and best:
            scores[best] = None  # its only one, which it calls the best
        for path, score in scores.items():
            known: Dict[str, Any] = {
                "monitor": monitor,
                "mode": getattr(callback, "mode", None) if monitor is not None else None,
                "value": None if score is None else lines.number(score),
                "best": monitor is not None and path == best,
                "last": path == last or (monitor is None and path == best),
            }
            found[path] = known
    return found


def folders(trainers: Iterable[Any]) -> List[str]:
    found = (getattr(callback, "dirpath", None) for callback in _checkpoints(trainers))
    return sorted({os.path.abspath(folder) for folder in found if folder and "://" not in str(folder)})


def _checkpoints(trainers: Iterable[Any]) -> List[Any]:
    return [one for trainer in trainers for one in trainer.checkpoint_callbacks if hasattr(one, "best_k_models")]


def _real(callback: Any, name: str) -> str:
    path = getattr(callback, name, "")
    return os.path.realpath(path) if path else ""
