"""What the GPU check says when something is amiss. Its tries on real torch are in tests/demo and tests/lab."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.services import loaded


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program, which is a top-level module where it runs."""
    yield from loaded("gpucheck_service", monkeypatch)


def driver(monkeypatch: pytest.MonkeyPatch, speaks: int, code: int) -> None:
    """A driver's library that knows CUDA `speaks` (12040 is 12.4) and whose cuInit ends with `code`."""

    def version(at: Any) -> int:
        at._obj.value = speaks
        return 0

    library = SimpleNamespace(cuDriverGetVersion=version, cuInit=lambda flags: code)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


@pytest.mark.parametrize(
    ("speaks", "code", "what", "mend"),
    [
        (11040, 803, "too old for this image: it speaks CUDA 11.4 at most, the image CUDA 12.8", "update the driver"),
        (12040, 802, "waits for the fabric manager", "nvidia-fabricmanager"),
        (12040, 803, "updated without a reboot", "reboot"),
        (12040, 100, "finds no GPU", "nvidia-smi"),
        (12040, 0, "gave this container no GPU", "sudo nvidia-ctk runtime configure"),
    ],
)
def test_why_pytorch_sees_no_gpu(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, speaks: int, code: int, what: str, mend: str
) -> None:
    driver(monkeypatch, speaks, code)
    told = check.why_no_cuda("12.8", container=True)
    assert told["status"] == "fail"
    assert what in told["found"]
    assert mend in told["mend"]


def test_a_torch_for_the_cpu_and_a_host_without_a_driver(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "built for the CPU alone" in check.why_no_cuda(None, container=False)["found"]

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "not on this host" in check.why_no_cuda("12.8", container=False)["found"]
    assert "not in this container" in check.why_no_cuda("12.8", container=True)["found"]


@pytest.mark.parametrize(
    ("capability", "status", "found"),
    [((9, 0), "ok", "fp16, bf16"), ((7, 5), "warn", "native: fp16 (compute"), ((5, 2), "warn", "native: none")],
)
def test_half_precisions(check: ModuleType, capability: tuple[int, int], status: str, found: str) -> None:
    torch = SimpleNamespace(cuda=SimpleNamespace(get_device_capability=lambda index: capability))
    told = check.precisions(torch, 0)
    assert told["status"] == status
    assert found in told["found"]


def test_fewer_gpus_than_leased_are_a_failure(check: ModuleType) -> None:
    assert check.count(2, ["A100", "A100"])["status"] == "ok"
    told = check.count(2, ["A100"])
    assert (told["status"], told["found"]) == ("fail", "PyTorch sees 1 GPU, and this run was given 2")
    assert check.count(2, ["NVIDIA A100 MIG 1g.10gb"])["status"] == "warn"  # CUDA's own rule


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("CUDA error: no kernel image is available for execution on the device", "--image v2.11"),
        ("CUDA out of memory. Tried to allocate 2 MiB", "somebody else"),
        ("CUDA error: uncorrectable ECC error encountered", "replaced"),
    ],
)
def test_a_product_that_is_refused(check: ModuleType, said: str, mend: str) -> None:
    class Torch:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"{said}\nCompile with TORCH_USE_CUDA_DSA")

    told = check.try_product(Torch(), "cuda:0", "GPU 0", "float32")
    assert (told["status"], told["found"]) == ("fail", said)
    assert mend in told["mend"]


def test_the_line_of_a_rank_that_tells_most(check: ModuleType) -> None:
    said = "box:1:1 [0] transport.cc:1 NCCL WARN no route\nTraceback\ntorch.DistBackendError: see above\n"
    assert check.last_error(said) == "box:1:1 [0] transport.cc:1 NCCL WARN no route"
    assert check.last_error("Traceback\nValueError: x\n") == "ValueError: x"


def test_one_failure_is_the_exit_code(check: ModuleType) -> None:
    said: list[str] = []
    findings = [check.finding("a", "ok", "1"), check.finding("b", "fail", "2"), check.finding("c", "warn", "3")]
    assert check.tell(iter(findings), said.append) == 1
    assert [json.loads(line)["topic"] for line in said] == ["a", "b", "c"]
    assert check.tell(iter(findings[::2]), said.append) == 0
