"""Read the settings of a service from `service.json` beside this file, which the runtime writes.

These programs run in the job's own Python, inside its container; what else they import is the image's.
"""

import json
import os
import sys
from typing import Any, Dict

HERE = os.path.dirname(os.path.abspath(__file__))


def told() -> Dict[str, Any]:
    """`kind`, `title`, `idle` (seconds), `workspace`, `sockets`, `board` (TensorBoard's runs), `project`, `run` (or None)."""
    with open(os.path.join(HERE, "service.json")) as file:
        found: Dict[str, Any] = json.load(file)
    return found


def only_installed() -> None:
    """Leave the project's folders out of this process's path: a project may have a `tensorboard/` of its own.

    PYTHONPATH itself stays, for the kernels and shells that are started from here.
    """
    theirs = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in sys.path if path not in theirs]


def fresh_socket(folder: str, name: str) -> str:
    """Where a service listens; one of a process that was killed is gone."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, name)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return path
