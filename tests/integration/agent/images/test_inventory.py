"""What a run ran on: asked of a real Python, kept for the next run on the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.images import inventory
from gpurun.agent.runtimes.docker import Docker
from gpurun.agent.state import journal
from tests.support.agent_host import AgentHost
from tests.support.run_folder import RunFolder
from tests.support.scripted_engine import ScriptedEngine


def ask(packages: Path) -> Any:
    """The program, in a Python that has these packages."""
    script = f"import sys; sys.path.insert(0, {str(packages)!r})\n{Path(inventory.PROGRAM).read_text()}"
    argv = [sys.executable, "-I", "-S", "-"]
    said = subprocess.run(argv, input=script, capture_output=True, text=True, check=True).stdout
    found: Any = json.loads(said)
    return found


def install(folder: Path, name: str, number: str, /, **files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    for path, text in files.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{path}.py").write_text(text)


def test_versions_are_read_without_importing_torch(tmp_path: Path) -> None:
    version = "from typing import Optional\n__version__ = '2.8.0+cu128'\ncuda: Optional[str] = '12.8'\n"
    install(tmp_path, "torch", "2.8.0", __init__="raise SystemExit(3)", version=version)
    install(tmp_path, "nvidia-cudnn-cu12", "9.10.2.21")
    install(tmp_path, "pytorch-lightning", "2.6.6")
    found = ask(tmp_path)
    assert found["packages"] == {"nvidia-cudnn-cu12": "9.10.2.21", "pytorch-lightning": "2.6.6", "torch": "2.8.0"}
    assert (found["torch"], found["cuda"], found["cudnn"], found["lightning"]) == (
        "2.8.0+cu128", "12.8", "9.10.2.21", "2.6.6",
    )  # fmt: skip


def test_a_python_without_torch(tmp_path: Path) -> None:
    found = ask(tmp_path)
    assert (found["torch"], found["cuda"], found["cudnn"], found["packages"]) == (None, None, None, {})
    assert found["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")


@pytest.mark.parametrize("code", [127, 125], ids=["no Python in it", "no engine"])
def test_an_image_that_tells_nothing_is_recorded_all_the_same(tmp_path: Path, code: int) -> None:
    scripted = ScriptedEngine(tmp_path, [("run --rm", code, "", "no such daemon")])
    job: Any = {"host": {"runtime": "docker", "engine": scripted.engine.argv}}
    run = RunFolder(tmp_path / "root", host=job["host"])
    prepared: Any = {"image": "busybox", "digest": "sha256:1", "image_id": "sha256:2", "environment": None}
    journal.record(run.paths, "prepared", record=prepared)
    inventory.Asking(run.paths, job, partial(Docker(scripted.engine.argv).about, run.paths, job)).finish()
    found = json.loads(Path(run.paths.environment).read_text())
    assert (found["image"], found["digest"], found["image_id"]) == ("busybox", "sha256:1", "sha256:2")
    assert (found["torch"], found["packages"]) == (None, {})
    assert not (Path(run.host.cache) / "about").exists()  # it is asked again


def test_a_run_says_what_it_ran_on(agent: AgentHost) -> None:
    run = agent.submit("print('hi')")
    agent.wait(run)
    deadline = time.monotonic() + 20  # the answer may come after the end
    while agent.status(run)["environment"] is None:
        assert time.monotonic() < deadline, Path(run.supervisor_log).read_text()
        time.sleep(0.05)
    whole = agent.ask("status", run=run.id)["environment"]
    assert whole["runtime"] == "bare"
    assert isinstance(whole["packages"], dict)
    assert agent.status(run)["environment"] == {name: whole[name] for name in inventory.SHOWN}
    (kept,) = (Path(agent.paths.cache) / "about").iterdir()
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "torch": "kept"}))
    again = agent.submit("import time; time.sleep(1)")
    agent.wait(again)
    assert agent.status(again)["environment"]["torch"] == "kept"
