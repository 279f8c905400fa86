"""A training on a host: what it tells gpurun by the plugin that comes with the agent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.e2e.conftest import REPOSITORY, Laptop

SCRIPT = REPOSITORY / "tests" / "plugin" / "scripts" / "train.py"


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    path = run / "out" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def folder(laptop: Laptop, run: str) -> Path:
    return Path(laptop.ok("path", run).strip().partition(":")[2]).parent


def test_a_lightning_script_that_knows_nothing_of_gpurun_tells_its_progress_and_checkpoints(laptop: Laptop) -> None:
    shutil.copy(SCRIPT, laptop.project / "train.py")
    run = laptop.submit("train.py", "--", "--epochs", "2", "--every", "10")
    assert laptop.until(run, "succeeded", "failed", seconds=180) == "succeeded", laptop.ok("logs", run)
    place = folder(laptop, run)
    progress = lines(place, "progress.jsonl")
    assert (progress[-1]["step"], progress[-1]["fraction"], progress[-1]["attempt"]) == (20, 1.0, 1)
    found = {line["path"] for line in lines(place, "checkpoints.jsonl") if "removed" not in line}
    assert found >= {"steps/step=10.ckpt", "steps/step=20.ckpt"}
    assert not any("gpurun:" in line for line in laptop.ok("logs", run).splitlines())
