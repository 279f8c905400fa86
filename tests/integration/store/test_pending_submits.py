"""Which submit goes on with the run of which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gpurun.store import pending_submits
from tests.unit.store.test_pending_submits import FILES, at, data_folder, job

__all__ = ["data_folder"]


def test_a_killed_process_leaves_its_claim_free(data_folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from gpurun.store import pending_submits; "
        f"pending_submits._folder = lambda: Path({str(data_folder)!r}); "
        f"pending_submits.take({job('a-1111')!r}, {FILES!r}, 'box', now={at(1000)!r}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert pending_submits.take(job("a-2222"), FILES, "box", now=at(1000)).job["id"] == "a-1111"
