"""The tries of the GPU check on real torch, as far as a CPU can make them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from gpurun.agent.setup import services
from tests.support.services import loaded

PROGRAM = Path(services.PROGRAMS) / "gpucheck_service.py"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from loaded("gpucheck_service", monkeypatch)


def test_the_tries_pass_on_a_cpu() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--device", "cpu"], capture_output=True, text=True, check=False)
    found = {finding["topic"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    for topic in ("CPU float32", "CPU float16", "CPU bfloat16", "between GPUs"):
        assert found[topic]["status"] == "ok", found[topic]
    assert "2 processes added up over gloo" in found["between GPUs"]["found"]
    assert done.returncode == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wrong_product_is_a_failure(check: ModuleType, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """One element of a million is wrong by one, as with a defective multiplier."""
    right = torch.Tensor.__matmul__

    def wrong(left: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        made = right(left, other)
        if made.dtype != torch.float64:
            made[17, 23] += 4 if dtype == "bfloat16" else 1
        return made

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    finding = check.check_product(torch, "cpu", "CPU", dtype)
    assert finding["status"] == "fail"
    assert "differs from the CPU's by" in finding["found"]
    assert "do not train on this GPU" in finding["mend"]


def test_failing_all_reduce_is_a_failure(check: ModuleType) -> None:
    """NCCL without a GPU fails as it does with a defective one."""
    finding = check.all_reduce("nccl", 2)
    assert finding["status"] == "fail"
    assert finding["found"].startswith("nccl: ")
    assert len(finding["found"]) > len("nccl: ")


def test_whole_check_with_two_gpus_simulated_on_the_cpu(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything except CUDA itself: which test runs on which GPU, and which test an older GPU skips."""
    plain: Any = torch.Tensor.to
    all_reduce = check.all_reduce

    def to(tensor: torch.Tensor, where: Any) -> Any:
        return plain(tensor, "cpu" if str(where).startswith("cuda:") else where)

    names, capabilities = ("NVIDIA H100", "NVIDIA T4"), ((9, 0), (7, 5))
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name=names[index], total_memory=80 << 30)
    )
    monkeypatch.setattr(
        check, "all_reduce", lambda backend, world: all_reduce("gloo" if backend == "nccl" else "", world)
    )
    found = list(check.check(2, container=True))
    assert found.pop()["topic"] == "shared memory"  # which depends on this machine
    assert [(each["topic"], each["status"]) for each in found] == [
        ("software", "ok"),
        ("CUDA", "ok"),
        ("GPU 0", "ok"),
        ("GPU 0 precision", "ok"),
        ("GPU 0 float32", "ok"),
        ("GPU 0 float16", "ok"),
        ("GPU 0 bfloat16", "ok"),
        ("GPU 1", "ok"),
        ("GPU 1 precision", "warn"),
        ("GPU 1 float32", "ok"),
        ("GPU 1 float16", "ok"),
        ("between GPUs", "ok"),
    ]
    assert found[2]["found"] == "NVIDIA H100, 80 GB"
