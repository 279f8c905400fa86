"""gpurun's part in a training that it started: progress, checkpoints, stop, resume. The user's script is not changed.

Lightning finds it by the entry point in the folder beside, which the job has at the end of its PYTHONPATH, and adds what
it returns to every Trainer. It runs in the job's own Python. Outside a run of gpurun it does nothing.
"""

import importlib
from typing import Any, List

from .say import give_up
from .told import told


def for_lightning() -> List[Any]:
    return _callbacks("lightning.pytorch")


def for_pytorch_lightning() -> List[Any]:
    return _callbacks("pytorch_lightning")


def _callbacks(package: str) -> List[Any]:
    """No error of ours may keep a Trainer from being made."""
    try:
        facts = told()
        if facts is None:
            return []
        # Late: a script that makes no Trainer pays for nothing.
        made = importlib.import_module(".callback", __name__)
        made.prepare(package, facts)
        return [made.callback(package, facts)]
    except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
        give_up("progress, checkpoints and stop are not looked after", error)
        return []
