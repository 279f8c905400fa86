"""The findings of the GPU check when something fails. Its tests with the real torch are in tests/demo and tests/lab."""

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
    """Return the program as a module; it runs as a top-level module."""
    yield from loaded("gpucheck_service", monkeypatch)


def driver(monkeypatch: pytest.MonkeyPatch, supported: int, code: int) -> None:
    """Install a driver's library that supports CUDA `supported` (12040 is 12.4) and whose cuInit returns `code`."""

    def version(at: Any) -> int:
        at._obj.value = supported
        return 0

    library = SimpleNamespace(cuDriverGetVersion=version, cuInit=lambda flags: code)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


@pytest.mark.parametrize(
    ("supported", "code", "what", "mend"),
    [
        (
            11040,
            803,
            "too old for this image: it supports CUDA 11.4 at most, the image needs CUDA 12.8",
            "update the driver",
        ),
        (12040, 802, "waits for the fabric manager", "nvidia-fabricmanager"),
        (12040, 803, "updated without a reboot", "reboot"),
        (12040, 100, "finds no GPU", "nvidia-smi"),
        (12040, 0, "gave this container no GPU", "sudo nvidia-ctk runtime configure"),
    ],
)
def test_why_no_cuda_explains_the_drivers_error(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, supported: int, code: int, what: str, mend: str
) -> None:
    driver(monkeypatch, supported, code)
    finding = check.why_no_cuda("12.8", container=True)
    assert finding["status"] == "fail"
    assert what in finding["found"]
    assert mend in finding["mend"]


def test_why_no_cuda_without_cuda_build_or_driver(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "built for the CPU only" in check.why_no_cuda(None, container=False)["found"]

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "not on this host" in check.why_no_cuda("12.8", container=False)["found"]
    assert "not in this container" in check.why_no_cuda("12.8", container=True)["found"]


@pytest.mark.parametrize(
    ("capability", "status", "found"),
    [((9, 0), "ok", "fp16, bf16"), ((7, 5), "warn", "native: fp16 (compute"), ((5, 2), "warn", "native: none")],
)
def test_precisions(check: ModuleType, capability: tuple[int, int], status: str, found: str) -> None:
    torch = SimpleNamespace(cuda=SimpleNamespace(get_device_capability=lambda index: capability))
    finding = check.precisions(torch, 0)
    assert finding["status"] == status
    assert found in finding["found"]


def test_count_of_fewer_gpus_than_leased_fails(check: ModuleType) -> None:
    assert check.count(2, ["A100", "A100"])["status"] == "ok"
    finding = check.count(2, ["A100"])
    assert (finding["status"], finding["found"]) == ("fail", "PyTorch sees 1 GPU, and this run was given 2")
    assert check.count(2, ["NVIDIA A100 MIG 1g.10gb"])["status"] == "warn"  # CUDA's own rule


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("CUDA error: no kernel image is available for execution on the device", "--image v2.11"),
        ("CUDA out of memory. Tried to allocate 2 MiB", "another program"),
        ("CUDA error: uncorrectable ECC error encountered", "replaced"),
    ],
)
def test_check_product_of_a_failing_gpu(check: ModuleType, said: str, mend: str) -> None:
    class Torch:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"{said}\nCompile with TORCH_USE_CUDA_DSA")

    finding = check.check_product(Torch(), "cuda:0", "GPU 0", "float32")
    assert (finding["status"], finding["found"]) == ("fail", said)
    assert mend in finding["mend"]


def test_last_error_prefers_the_warning_of_nccl(check: ModuleType) -> None:
    said = "box:1:1 [0] transport.cc:1 NCCL WARN no route\nTraceback\ntorch.DistBackendError: see above\n"
    assert check.last_error(said) == "box:1:1 [0] transport.cc:1 NCCL WARN no route"
    assert check.last_error("Traceback\nValueError: x\n") == "ValueError: x"


def test_one_failure_sets_the_exit_code(check: ModuleType) -> None:
    lines: list[str] = []
    findings = [check.finding("a", "ok", "1"), check.finding("b", "fail", "2"), check.finding("c", "warn", "3")]
    assert check.print_findings(iter(findings), lines.append) == 1
    assert [json.loads(line)["topic"] for line in lines] == ["a", "b", "c"]
    assert check.print_findings(iter(findings[::2]), lines.append) == 0
