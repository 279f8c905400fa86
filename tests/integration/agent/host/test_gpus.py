"""What nvidia-smi says, from files that hold what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import gpus


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, alone on the PATH; write its text."""
    program = tmp_path / "nvidia-smi"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_a_driver_that_sees_no_gpu(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert gpus.list_gpus() == []


def test_a_driver_that_hangs_is_not_waited_for(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(AgentError, match=r"did not answer in 0.2 s"):
        gpus.list_gpus(0.2)


def test_a_driver_that_is_not_loaded_is_told(nvidia_smi: Path) -> None:
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    nvidia_smi.write_text(f'#!/bin/sh\necho "{said}"\nexit 9\n')
    with pytest.raises(AgentError, match="couldn't communicate with the NVIDIA driver"):
        gpus.list_gpus()
