"""Read the settings of a service from `service.json` beside this file, which the runtime writes.

The programs of this folder run in the job's own Python, inside its container; all other imports come from the image.
"""

import json
import os
import sys
from typing import Any, Dict

HERE = os.path.dirname(os.path.abspath(__file__))


def read_settings() -> Dict[str, Any]:
    """Return `kind`, `title`, `idle` (seconds), `workspace`, `sockets`, `board` (TensorBoard's runs), `project`, `run` (or None)."""
    with open(os.path.join(HERE, "service.json")) as file:
        settings: Dict[str, Any] = json.load(file)
    return settings


def import_only_installed() -> None:
    """Remove the project's folders from this process's sys.path: a project may have a `tensorboard/` of its own.

    PYTHONPATH stays set for the kernels and shells that this process starts.
    """
    project_folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in sys.path if path not in project_folders]


def fresh_socket(folder: str, name: str) -> str:
    """Return the path of a service's socket, after removing the socket of a killed process."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, name)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return path
