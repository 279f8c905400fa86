"""What runs ran on, in a container and without one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop

SAY = """
import json, torch, lightning, time
time.sleep(1)
print(json.dumps([torch.__version__, torch.version.cuda, lightning.__version__]))
"""


def ran(laptop: Laptop, host: str, script: str, *options: str) -> tuple[list[str], dict[str, Any]]:
    """What the job itself said, and what `status --json` says."""
    project = laptop.project({"gpurun.toml": "", "say.py": script})
    log = laptop.gpurun("submit", "say.py", "-H", host, *options, "-f", cwd=project, timeout=300).stdout
    return log.splitlines(), laptop.gpurun("status", "--json", cwd=project).json


@pytest.mark.usefixtures("pinned_image")
def test_a_container_is_told_by_image_versions_driver_and_gpus(host: LabHost, laptop: Laptop) -> None:
    log, told = ran(laptop, "ada", SAY, "-g", "2")
    found = told["environment"]
    assert f'["{found["torch"]}", "{found["cuda"]}", "{found["lightning"]}"]' in log
    assert found["image"] == told["run"]["image"]
    assert found["image_id"] == told["prepared"]["image_id"]
    assert found["image"].endswith("-" + found["content"])
    assert found["base"] == "gpurun-lab/pytorch:2.8.0"
    assert found["cudnn"].startswith("9.")
    assert found["driver"] == "570.133.20"
    assert [gpu["uuid"] for gpu in found["gpus"]] == host.gpus.uuids[:2]
    assert found["packages"]["torchmetrics"]
    project = laptop.home / "work/vision"
    shown = laptop.gpurun("status", cwd=project).stdout
    assert f"torch {found['torch']}, CUDA 12.8, cuDNN 9." in shown
    laptop.gpurun("fetch", cwd=project)
    run = told["run"]["id"]
    assert (project / "fetched" / run / "_gpurun/environment.json").is_file()
    host.sshd.stop()  # the laptop's mirror has the versions
    try:
        last = laptop.gpurun("ps", "-a", "--json", cwd=project, check=False).json
        (record,) = [record for record in last["runs"] if record["id"] == run]
        assert record["environment"]["torch"] == found["torch"]
    finally:
        host.sshd.start()


def test_an_environment_without_an_engine_is_told_too(bare_host: LabHost, laptop: Laptop) -> None:
    log, told = ran(laptop, "bare", "import torch\nprint(torch.__version__)\n", "-g", "0")
    found = told["environment"]
    assert found["torch"] in log
    assert (found["image"], found["runtime"]) == (None, "bare")
    assert found["environment"] == told["prepared"]["environment"]
    assert "torchvision" in found["packages"]
