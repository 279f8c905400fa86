"""What all Trainers of one process share: the ledger, and who they are."""

import time
import weakref
from typing import Any, Dict, Optional

from . import announced, lines
from .ledger import Ledger
from .say import guarded
from .told import LEDGER_FILE, PROGRESS_FILE, Told

BEGAN = time.time()
_trainers: "weakref.WeakSet[Any]" = weakref.WeakSet()
_ledgers: Dict[str, Ledger] = {}


@guarded("checkpoints are not listed")
def ledger(told: Told, trainer: Any) -> Optional[Ledger]:
    """The one of this process, which begins with its first Trainer."""
    _trainers.add(trainer)
    path = told.file(LEDGER_FILE)
    if path not in _ledgers:
        made = Ledger(
            path,
            told.workspace,
            told.attempt,
            since(told),
            lambda: announced.announced(list(_trainers)),
            lambda: announced.folders(list(_trainers)),
        )
        made.start()
        made.expect()
        _ledgers[path] = made
    return _ledgers[path]


def since(told: Told) -> float:
    """When the run's first attempt began to train: checkpoints from before came with the project."""
    earlier = [float(line["t"]) for line in lines.read(told.file(PROGRESS_FILE)) if isinstance(line.get("t"), float)]
    return min([BEGAN, *earlier[:1]]) - 1.0  # the clock of files lags behind by a tick
