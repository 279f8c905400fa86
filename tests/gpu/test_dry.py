"""The GPU's steps on the CPU, so that they still run on the day when there is a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.laptop import REPOSITORY
from tests.gpu.report import LEFT_OUT, PASSED
from tests.gpu.steps import STEPS


@pytest.mark.timeout(2400)
def test_every_step_but_those_of_cuda_itself_passes_on_the_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--dry"],
        cwd=REPOSITORY,
        env={**os.environ, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads((tmp_path / "gpu.json").read_text()) if (tmp_path / "gpu.json").exists() else {"rows": []}
    outcomes = {row["step"]: row["outcome"] for row in report["rows"]}
    expected = {step.name: LEFT_OUT if step.needs_gpu else PASSED for step in STEPS}
    assert outcomes == expected, done.stdout + done.stderr + (tmp_path / "gpu.log").read_text()[-5000:]
    assert done.returncode == 0
    assert (tmp_path / "gpu.md").read_text().startswith("# gpurun on the CPU: a dry run, without a GPU\n")


def test_without_a_gpu_the_real_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu"],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "nvidia-smi shows no GPU; `--dry` runs the steps on the CPU\n")
