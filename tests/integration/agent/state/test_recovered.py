"""What a job saved in the second before it was killed: files as torch writes them, whole and half written."""

from __future__ import annotations

import subprocess
import time

from tests.support.run_folder import RunFolder
from tests.unit.agent.state.test_recovered import listed, run, saved

__all__ = ["run"]


def test_one_that_is_being_written_is_not_taken(run: RunFolder) -> None:
    path = run.write("last.ckpt", saved(70), at=time.time())
    with path.open("ab") as file, subprocess.Popen(["sleep", "60"], stdout=file) as writer:
        try:
            assert listed(run) == []
        finally:
            writer.kill()
    assert listed(run) == [("last.ckpt", 70)]
