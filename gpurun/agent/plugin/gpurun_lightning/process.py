"""Keep what all Trainers of one process share: the ledger, and the list of Trainers."""

import time
import weakref
from typing import Any, Dict, Optional

from . import announced, lines
from .job_log import guarded
from .ledger import Ledger
from .settings import LEDGER_FILE, PROGRESS_FILE, Settings

STARTED = time.time()
_trainers: "weakref.WeakSet[Any]" = weakref.WeakSet()
_ledgers: Dict[str, Ledger] = {}


@guarded("checkpoints are not listed")
def ledger(settings: Settings, trainer: Any) -> Optional[Ledger]:
    """Return the ledger of this process; start it with the first Trainer."""
    _trainers.add(trainer)
    path = settings.file(LEDGER_FILE)
    if path not in _ledgers:
        created = Ledger(
            path,
            settings.workspace,
            settings.attempt,
            since(settings),
            lambda: announced.announced(list(_trainers)),
            lambda: announced.folders(list(_trainers)),
        )
        created.start()
        created.expect()
        _ledgers[path] = created
    return _ledgers[path]


def since(settings: Settings) -> float:
    """Return when the run's first attempt began to train. Older checkpoints came with the project."""
    earlier = [
        float(line["t"]) for line in lines.read(settings.file(PROGRESS_FILE)) if isinstance(line.get("t"), float)
    ]
    return min([STARTED, *earlier[:1]]) - 1.0  # file times may lag by a tick
