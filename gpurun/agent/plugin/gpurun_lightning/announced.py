"""Read what the ModelCheckpoints of this process know about their files."""

import os
from typing import Any, Dict, Iterable, List

from . import lines
from .ledger import Announced


def announced(trainers: Iterable[Any]) -> Announced:
    """Return the data of each file by its real path. The training thread may change Lightning's attributes meanwhile."""
    files: Announced = {}
    for callback in _checkpoints(trainers):
        monitor = getattr(callback, "monitor", None)
        best, last = _real(callback, "best_model_path"), _real(callback, "last_model_path")
        scores = {os.path.realpath(path): score for path, score in dict(callback.best_k_models).items()}
        if last and last not in scores:
            scores[last] = getattr(callback, "current_score", None)
        if monitor is None and best:
            scores[best] = None  # the only file, which Lightning calls the best one
        for path, score in scores.items():
            data: Dict[str, Any] = {
                "monitor": monitor,
                "mode": getattr(callback, "mode", None) if monitor is not None else None,
                "value": None if score is None else lines.number(score),
                "best": monitor is not None and path == best,
                "last": path == last or (monitor is None and path == best),
            }
            files[path] = data
    return files


def folders(trainers: Iterable[Any]) -> List[str]:
    paths = (getattr(callback, "dirpath", None) for callback in _checkpoints(trainers))
    return sorted({os.path.abspath(folder) for folder in paths if folder and "://" not in str(folder)})


def _checkpoints(trainers: Iterable[Any]) -> List[Any]:
    return [each for trainer in trainers for each in trainer.checkpoint_callbacks if hasattr(each, "best_k_models")]


def _real(callback: Any, name: str) -> str:
    path = getattr(callback, name, "")
    return os.path.realpath(path) if path else ""
