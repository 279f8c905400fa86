"""job.json: what the host gets."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.config import hosts
from gpurun.config.load import load
from gpurun.errors import UsageError
from gpurun.job.files import list_files
from gpurun.job.spec import for_host, make_job
from gpurun.store.run_ids import new_id
from tests.support.part import part


@pytest.fixture
def project(home: Path) -> Path:
    root = home / "vision"
    root.mkdir()
    (root / "gpurun.toml").touch()
    (root / "train.py").touch()
    hosts.add("box", {"engine": "sudo -n docker", "python": "/opt/py", "data": {"imagenet": "/mnt/imagenet"}})
    return root


def made(project: Path, target: str | None = "train.py", run_id: str | None = "train-7f3k", **flags: Any) -> Any:
    loaded = load(flags, target, project)
    files = list_files(loaded.project, exclude=loaded.spec.exclude, env_files=loaded.env_files)
    return make_job(loaded, files, now=1_760_000_000.0, dependencies=None, run_id=run_id)


def test_the_whole_job(project: Path) -> None:
    job = made(
        project,
        gpus="2",
        memory="32GB",
        env=["WANDB_API_KEY=hunter2", "LR=1"],
        mounts=["~/scans:/scans:ro"],
        data=["imagenet"],
        args=["--lr", "1e-3"],
        max_duration="12h",
    )
    assert len(job.pop("token")) == 32
    assert job.pop("base")["name"] == "v2.8"
    assert job == {
        "schema": 1,
        "id": "train-7f3k",
        "name": "train",
        "owner": getpass.getuser(),
        "created": 1_760_000_000.0,
        "project": {"name": "vision", "root": str(project)},
        "job_file": None,
        "command": ["python", "train.py", "--lr", "1e-3"],
        "script": "train.py",
        "args": ["--lr", "1e-3"],
        "resources": {"gpus": 2, "memory": 32_000_000_000, "cpus": None, "shm": None},
        "runtime": None,
        "image": None,
        "dockerfile": None,
        "env": ["LR", "WANDB_API_KEY"],
        "mounts": [
            {"name": None, "source": "~/scans", "target": "/scans", "readonly": True},
            {"name": "imagenet", "source": "/mnt/imagenet", "target": "/data/imagenet", "readonly": True},
        ],
        "data": "imagenet",
        "max_duration": 43200.0,
        "grace": 60.0,
        "retries": 0,
        "on_checkpoint": None,
        "on_end": None,
        "dependencies": None,
        "git": None,
        "keep_caps": [],
        "user": None,
        "profile": {
            "python": "/opt/py",
            "engine": ["sudo", "-n", "docker"],
            "pip_index": None,
            "registry_mirror": None,
        },
        "service": None,
        "notebook": None,
        "ports": [],
        "fetch_hint": "gpurun fetch train-7f3k",
    }
    assert "hunter2" not in json.dumps(job)


def test_an_image_of_the_projects_own(project: Path) -> None:
    (project / "docker").mkdir()
    (project / "docker/Dockerfile").write_text("FROM python:3.12\n")
    job = made(project, dockerfile="./docker/Dockerfile")
    assert (job["image"], job["base"], job["dockerfile"]) == (None, None, "docker/Dockerfile")
    with pytest.raises(UsageError, match="docker/Dockerfil is not sent to the host: there is no such file"):
        made(project, dockerfile="docker/Dockerfil")
    with pytest.raises(UsageError, match="both named"):
        made(project, dockerfile="docker/Dockerfile", image="v2.7")


def test_tokens_differ_and_ids_are_made(project: Path) -> None:
    one, two = made(project, run_id=None), made(project, run_id=None)
    assert one["token"] != two["token"]
    assert one["id"].startswith("train-")
    assert one["fetch_hint"].endswith(one["id"])


@pytest.mark.parametrize("name", ["train", "ResNet 50", "数据", "-", "a" * 200, "--x--", "1"])
def test_ids_are_safe_as_a_folder_and_a_containers_name(name: str) -> None:
    assert re.fullmatch(words.RUN_ID, new_id(name))
    assert not re.search("[01oil]", new_id("sketch").removeprefix("sketch-"))


@pytest.mark.parametrize(
    ("script", "mode", "command"),
    [
        ("src/train.py", 0o644, ["python", "src/train.py"]),
        ("-odd.py", 0o644, ["python", "./-odd.py"]),
        ("two words.sh", 0o644, ["bash", "two words.sh"]),
        ("bin/run", 0o755, ["./bin/run"]),
    ],
)
def test_the_command_follows_from_the_script(project: Path, script: str, mode: int, command: list[str]) -> None:
    (project / script).parent.mkdir(exist_ok=True)
    (project / script).touch()
    (project / script).chmod(mode)
    assert made(project, script)["command"] == command


@pytest.mark.parametrize("module", ["vision.nope", "vision.nope.more"])
def test_a_module_that_the_projects_own_package_does_not_have(project: Path, module: str) -> None:
    (project / "vision").mkdir()
    (project / "vision/__init__.py").touch()
    with pytest.raises(UsageError, match=f"the project's vision has no module {module}"):
        made(project, None, None, module=module)


def test_a_module_of_the_image(project: Path) -> None:
    assert made(project, None, None, module="torch.distributed.run")["command"][:3] == [
        "python",
        "-m",
        "torch.distributed.run",
    ]


def test_a_module(project: Path) -> None:
    job = made(project, None, None, module="vision.train.__main__", args=["-v"])
    assert job["command"] == ["python", "-m", "vision.train.__main__", "-v"]
    assert (job["name"], job["script"]) == ("train", "-m vision.train.__main__")


@pytest.mark.parametrize(
    ("script", "says", "step"),
    [
        ("notes.txt", r"neither a \.py, an \.ipynb nor a \.sh", "chmod +x notes.txt"),
    ],
)
def test_what_cannot_be_started(project: Path, script: str, says: str, step: str) -> None:
    (project / script).touch(0o644)
    with pytest.raises(UsageError, match=says) as error:
        made(project, script)
    assert step in error.value.next_step


def test_a_script_that_stays_on_the_laptop(project: Path) -> None:
    (project / ".gitignore").write_text("train.py\n")
    with pytest.raises(UsageError, match=r"train\.py stays on the laptop: ignored by git") as error:
        made(project)
    assert "!/train.py" in error.value.next_step


def test_a_job_file_whose_script_is_missing(project: Path) -> None:
    (project / "job.toml").write_text('script = "trian.py"')
    with pytest.raises(UsageError, match=r"there is no script trian\.py in the project"):
        made(project, "job.toml")


def test_data_that_the_host_does_not_have(project: Path) -> None:
    (project / "gpurun.toml").write_text('data = ["coco"]')
    with pytest.raises(UsageError, match="the host box has no data called coco") as error:
        made(project)
    assert "[hosts.box.data]" in error.value.next_step
    assert str(project / "gpurun.toml") in error.value.what


def test_a_run_named_by_the_user(project: Path) -> None:
    job = made(project, run_id=None, name="ResNet 50")
    assert job["name"] == "ResNet 50"
    assert job["id"].startswith("resnet-50-")


def test_job_that_goes_on_on_another_host(project: Path) -> None:
    """Its own paths stay; what a host's profile says is the new host's."""
    hosts.add("spare", {"python": "/usr/bin/python3", "data": {"imagenet": "/data/imagenet"}})
    job = {**made(project, mounts=["~/scans:/scans"], data=["imagenet"], host="box"), "host": {"id": "h1"}}
    other = for_host(part(job), hosts.read().get("spare"), ["B", "A"], None)
    assert [(mount["source"], mount["target"]) for mount in other["mounts"]] == [
        ("~/scans", "/scans"),
        ("/data/imagenet", "/data/imagenet"),
    ]
    assert (other["profile"]["python"], other["profile"]["engine"], other["env"]) == (
        "/usr/bin/python3",
        None,
        ["A", "B"],
    )
    assert "host" not in other
    kept = ("id", "token", "command", "image", "runtime", "resources", "retries", "dependencies")
    assert {key: other.get(key) for key in kept} == {key: job[key] for key in kept}
    assert for_host(part(job), hosts.read().get("spare"), [], 4)["resources"]["gpus"] == 4


def test_host_that_lacks_the_data_of_a_run_that_comes(project: Path) -> None:
    job = made(project, data=["imagenet"], host="box")
    with pytest.raises(UsageError, match="the host spare has no data called imagenet"):
        for_host(job, hosts.read().get("spare"), [], None)
