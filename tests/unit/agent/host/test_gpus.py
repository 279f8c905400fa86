"""What nvidia-smi says, from files that hold what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.host import gpus
from gpurun.agent.host.gpus import Gpu

DATA = Path(__file__).parents[3] / "data/nvidia_smi"
MIB = 1 << 20
FIRST = "GPU-5b2f3f0e-8f5b-7c7e-2a0e-0f8f6e1f9a01"
SECOND = "GPU-9c1f11d4-0a57-4f0b-6c7d-64a8d9f1be02"


def parse(name: str) -> list[tuple[Gpu, bool]]:
    return gpus.parse_gpus((DATA / name).read_text())


def test_gpus_with_their_memory_in_bytes() -> None:
    assert parse("gpus_plain.csv") == [
        (Gpu(0, FIRST, "NVIDIA H100 80GB HBM3", 81559 * MIB, 4 * MIB), False),
        (Gpu(1, SECOND, "NVIDIA H100 80GB HBM3", 81559 * MIB, 61234 * MIB), False),
    ]


def test_a_gpu_that_cannot_be_cut() -> None:
    assert [(gpu.name, cut) for gpu, cut in parse("gpus_consumer.csv")] == [("NVIDIA GeForce RTX 4090", False)]


def test_memory_that_is_not_told_is_zero() -> None:
    assert [(gpu.memory, gpu.used) for gpu, _ in parse("gpus_unified_memory.csv")] == [(0, 0)]


def test_broken_gpus_are_left_out() -> None:
    assert [gpu.index for gpu, _ in parse("gpus_broken.csv")] == [0]


def test_a_gpu_that_is_cut_gives_way_to_its_slices() -> None:
    slices = gpus.parse_slices((DATA / "list_mig.txt").read_text())
    name = "NVIDIA A100-SXM4-80GB"
    assert gpus.with_slices(parse("gpus_mig.csv"), slices) == [
        Gpu(0, "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", f"{name} MIG 3g.40gb", 40 << 30, 0),
        Gpu(0, "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", f"{name} MIG 1g.10gb+me", 10 << 30, 0),
        Gpu(1, SECOND, name, 81920 * MIB, 4 * MIB),
    ]


def test_processes_with_commas_in_their_names() -> None:
    assert gpus.parse_processes((DATA / "processes.csv").read_text()) == [
        (SECOND, 4242, "/usr/bin/python3", 2048 * MIB),
        (SECOND, 4243, "/opt/my, tool --flag", 0),
        (FIRST, 77, "[Insufficient Permissions]", 0),
    ]


def test_the_drivers_version() -> None:
    assert gpus.parse_driver("570.86.15\n570.86.15\n") == "570.86.15"
    assert gpus.parse_driver("[N/A]\n") is None


def test_a_host_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "_ELSEWHERE", ())
    assert (gpus.list_gpus(), gpus.driver_version()) == ([], None)


def test_processes_without_nvidia_smi_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a host that has GPUs: it is being replaced, and "nobody computes" would be a guess."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "_ELSEWHERE", ())
    with pytest.raises(AgentError, match="nvidia-smi is missing"):
        gpus.processes()
