"""One line in, a message and an exit code out."""

from __future__ import annotations

import os
import subprocess
import sys


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
