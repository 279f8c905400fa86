"""The laptop's index of runs, and what a word on the command line means in it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import pytest

from gpurun.store import run_store
from tests.unit.store.test_run_store import job, record

pytestmark = pytest.mark.usefixtures("home")


def _add_many(prefix: str) -> None:
    for number in range(50):
        run_store.add(job(f"{prefix}-2{number:03d}"), "box")
        run_store.update([record("shared-2222")], "box")


def test_processes_side_by_side_lose_nothing() -> None:
    spawning = multiprocessing.get_context("fork")
    workers = [spawning.Process(target=_add_many, args=(name,)) for name in ("a", "b", "c")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(run_store.all_runs()) == 151
    assert not [path for path in run_store.folder().iterdir() if path.suffix not in (".json", ".patch")]


def test_the_import_is_cheap() -> None:
    code = "import sys, gpurun.store.run_store; print(*sorted({'pydantic', 'rich', 'tenacity', 'pathspec'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.split() == []
