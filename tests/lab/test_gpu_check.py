"""`host check --gpu` on hosts whose GPUs are of paper: everything up to CUDA itself is real."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gpurun.agent.setup import services
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.terminal import Terminal

GPURUN = [sys.executable, "-m", "gpurun"]


@pytest.mark.usefixtures("pinned_image")
def test_container_without_the_driver_is_reported(host: LabHost, laptop: Laptop) -> None:
    told = laptop.gpurun("host", "check", "ada", "--gpu", "--json", check=False, timeout=300)
    assert told.returncode == 125
    found = {each["topic"]: each for each in told.json["findings"]}
    assert found["nvidia-smi"]["found"] == "4x NVIDIA A100-SXM4-80GB, driver 570.133.20"
    assert found["software"]["found"].startswith("PyTorch 2.8.0+cu128, CUDA 12.8, cuDNN 9")
    assert found["CUDA"]["found"] == "the driver's library (libcuda.so.1) is not in this container"
    assert "Container Toolkit" in found["CUDA"]["mend"]
    assert found["shared memory"]["status"] == "ok"
    assert [gpu["uuid"] for gpu in told.json["gpus"]] == host.gpus.uuids
    run = laptop.gpurun("status", told.json["run"], "--json").json["run"]
    assert (run["state"], run["exit_code"]) == ("failed", 1)
    assert (host.home() / ".gpurun/data").is_dir()
    assert "can be given back" in laptop.gpurun("host", "leave", "ada", "-y", timeout=300).stderr


def test_environment_without_the_driver_is_reported(bare_host: LabHost, laptop: Laptop) -> None:
    told = laptop.gpurun("host", "check", "bare", "--gpu", "-g", "1", check=False, timeout=300)
    assert told.returncode == 125
    assert "FAIL  CUDA" in told.stdout
    assert "install the NVIDIA driver" in told.stdout
    assert "gpurun logs gpucheck-" in told.stderr


def test_gpu_check_on_the_cpu_of_a_host(bare_host: LabHost) -> None:
    """torch 2.8.0, built for CUDA, with the host's own Python."""
    for name in ("gpucheck_service.py", "service_settings.py"):
        text = Path(services.PROGRAMS, name).read_text()
        (bare_host.root / "tmp" / name).write_text(text)
    said = bare_host.run("python3", "/tmp/gpucheck_service.py", "--device", "cpu", timeout=300)
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [each["status"] for each in found if each["topic"].startswith(("CPU", "between"))] == ["ok"] * 4


def test_host_without_gpus_has_its_own_exit_code(bare_host: LabHost, laptop: Laptop) -> None:
    bare_host.gpus.uninstall()
    told = laptop.gpurun("host", "check", "bare", "--gpu", check=False)
    assert told.returncode == 3
    assert "bare has no GPU: nvidia-smi lists none" in told.stderr
    assert laptop.gpurun("ps", "-a", "-H", "bare", "--json").json["runs"] == []


def test_check_waits_for_its_gpus_and_ends_with_its_caller(bare_host: LabHost, laptop: Laptop) -> None:
    bare_host.gpus.hold(2, 4096)
    env = {**laptop.env, "TERM": "xterm-256color"}
    with Terminal([*GPURUN, "host", "check", "bare", "--gpu"], env=env, cwd=laptop.home) as person:
        person.expect("waits", 60)
        person.type("\x03")
        person.expect("is stopped", 30)
        assert person.wait() == 130
    (run,) = laptop.gpurun("ps", "-a", "-H", "bare", "--json").json["runs"]
    assert run["state"] == "stopped" or run["stop_requested"]


def test_old_driver_is_explained(host: LabHost, laptop: Laptop) -> None:
    gpus = host.root / "run/lab/gpus"
    gpus.write_text(gpus.read_text().replace("570.133.20", "515.105.01"))
    told = laptop.gpurun("host", "check", "ada", "--gpu", check=False)
    assert told.returncode == 125
    assert "driver 515.105.01 is too old for the image v2.8" in told.stderr
