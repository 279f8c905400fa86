"""The script of a notebook as a job runs it: a real Python, the package beside it, nothing else of gpurun."""

from __future__ import annotations

import os
from pathlib import Path

from gpurun.agent.paths import HostPaths
from gpurun.agent.setup import notebooks
from tests.support.part import only


def test_other_jobs_have_nothing_of_it(tmp_path: Path) -> None:
    paths = HostPaths(str(tmp_path)).run("train-7f3k")
    notebooks.lay_out(paths, only(notebook=None, args=[]))
    notebooks.lay_out(paths, only(args=[]))
    assert not os.path.exists(paths.ro)
