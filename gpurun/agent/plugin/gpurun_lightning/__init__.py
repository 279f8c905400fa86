"""Add progress, checkpoints, stop and resume to a training that gpurun started. The user's script is not changed.

Lightning finds the plugin by the entry point in the folder beside, which is at the end of the job's PYTHONPATH, and adds the
callbacks to every Trainer. The plugin runs in the job's own Python. Outside a run of gpurun it does nothing.
"""

import importlib
from typing import Any, List

from .job_log import report_failure
from .settings import read_settings


def for_lightning() -> List[Any]:
    return _callbacks("lightning.pytorch")


def for_pytorch_lightning() -> List[Any]:
    return _callbacks("pytorch_lightning")


def _callbacks(package: str) -> List[Any]:
    """Return the callbacks for a Trainer. An error here must not prevent the Trainer."""
    try:
        settings = read_settings()
        if settings is None:
            return []
        # Import late, so that a script without a Trainer pays nothing.
        module = importlib.import_module(".callback", __name__)
        module.prepare(package, settings)
        return [module.callback(package, settings)]
    except Exception as error:  # noqa: BLE001 - the training continues after any error
        report_failure("progress, checkpoints and stop do not work", error)
        return []
