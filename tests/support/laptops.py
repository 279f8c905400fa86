"""The environment of a laptop that a test made: a home of its own, and an ssh that knows only the test's hosts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def environment(home: Path, runtime: Path, ssh: Sequence[str], *, columns: int) -> dict[str, str]:
    """Return this process's variables, less those that would lead gpurun to the user's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPURUN_", "XDG_", "NO_COLOR"))}
    return kept | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "GPURUN_SSH": shlex.join(ssh),
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": str(columns),
    }
