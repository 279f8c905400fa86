"""Copy gpurun's plugin, which Lightning finds by its entry point, into the job's environment.

See plugin/ for what the plugin does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import vocabulary as words
from ..files import write_atomically
from ..paths import RunPaths
from . import services

if TYPE_CHECKING:
    from ..schema.job import Job

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), words.PLUGIN)


def lay_out(run: RunPaths, job: Job) -> None:
    """Copy the plugin into the run's ro/, which the wrapper appends to PYTHONPATH.

    Services train nothing and get no plugin.
    """
    if services.kind(job) is not None:
        return
    for folder, folders, names in os.walk(SOURCE):
        folders[:] = [name for name in folders if name != "__pycache__"]
        target = os.path.join(run.plugin, os.path.relpath(folder, SOURCE))
        os.makedirs(target, exist_ok=True)
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                write_atomically(os.path.join(target, name), file.read())
