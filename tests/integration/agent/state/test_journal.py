from __future__ import annotations

import os

from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal
from tests.unit.agent.state.test_journal import run

__all__ = ["run"]


def test_many_writers_lose_nothing(run: RunPaths) -> None:
    """The stop verb and the supervisor both write."""
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            for _ in range(25):
                journal.record(run, "note", message=str(number))
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    notes = journal.fold(run).notes
    assert sorted(notes) == sorted(str(number) for number in range(8) for _ in range(25))
