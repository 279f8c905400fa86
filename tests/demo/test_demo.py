"""`gpurun demo` as a user runs it, with a real SSH host and a real job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from gpurun.demo import processes
from gpurun.demo.host import MARK


def test_demo_trains_fetches_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    before = set(Path("/tmp").glob("gpurun-demo-*"))
    done = subprocess.run(
        [sys.executable, "-m", "gpurun", "demo"],
        env={
            **os.environ,
            "HOME": str(home),
            "GPURUN_HOST": "not-the-demos",
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = re.search(r"classifies ([\d.]+)% of the validation images correctly", done.stdout)
    assert found, done.stdout
    assert float(found[1]) >= 97
    for command in ("gpurun submit train.py", "gpurun ps -a", "gpurun fetch", "python predict.py", "gpurun rm"):
        assert f"$ {command}" in done.stdout
    assert "epoch 2/29" in done.stdout  # the log was followed
    assert list((home / ".ssh").iterdir()) == []
    assert not (tmp_path / "config/gpurun").exists()
    assert set(Path("/tmp").glob("gpurun-demo-*")) <= before
    host = re.search(r"its home is (/tmp/gpurun-demo-[^/]+/host)/home", done.stdout)
    assert host
    assert processes.marked(MARK, host[1]) == []


def test_demo_names_the_missing_package(tmp_path: Path) -> None:
    """An import hook hides asyncssh, as if it was never installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'asyncssh' else find(name, *more)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "gpurun", "demo"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "asyncssh" in done.stderr
    assert "pip install '.[demo]'" in done.stderr
    assert "Traceback" not in done.stderr
