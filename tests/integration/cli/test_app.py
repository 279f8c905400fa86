"""One line in, a message and an exit code out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_help_loads_no_verb_and_nothing_slow() -> None:
    code = (
        "import sys; from gpurun.cli.app import main; main(['--help']); "
        "slow = ('pydantic', 'rich', 'paramiko', 'fabric', 'tenacity', 'gpurun.cli.submit', 'gpurun.remote.wire'); "
        "sys.exit(', '.join(name for name in slow if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "gpurun", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.stderr == b""


def test_completion_offers_verbs_and_asks_no_host() -> None:
    environment = {**os.environ, "_GPURUN_COMPLETE": "complete_bash", "COMP_WORDS": "gpurun st", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gpurun"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["status", "stop"], done.stderr


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "line",
    [
        ["submit", "train.py", "-g", "0", "--memory", "1GB", "--max-duration", "1h", "--dry-run"],
        ["logs", "--tail", "5", "--since", "5m"],
        ["prune", "--older-than", "14d"],
        ["init", "vision"],
    ],
    ids=lambda line: line[0],
)
def test_command_is_read_without_pydantic(line: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    code = f"import sys; from gpurun.cli.app import main; main({line!r}); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
