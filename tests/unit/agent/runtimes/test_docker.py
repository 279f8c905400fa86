"""The docker runtime over an engine that others use too: containers are renamed, images pruned, the engine goes away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import RunFailed
from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.runtimes.docker import Docker
from tests.unit.agent.fake_engine import FakeEngine

IMAGE = "sha256:1a2b"
PREPARED = {"image_id": IMAGE}


def make_job(attempt: int = 1, token: str = "t0") -> dict[str, Any]:
    return {
        "id": "train-7f3k", "token": token, "name": "train", "owner": "ada", "project": {"name": "vision"},
        "command": ["python", "train.py"], "mounts": [], "keep_caps": [], "user": None, "attempt": attempt,
        "resources": {"gpus": 0, "memory": None, "cpus": None, "shm": None}, "image": IMAGE,
        "dependencies": None, "profile": {"pip_index": None, "registry_mirror": None},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    made = HostPaths(str(tmp_path / "root")).run("train-7f3k")
    os.makedirs(made.out)
    os.makedirs(made.workspace)
    return made


@pytest.fixture
def fake(tmp_path: Path, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(tmp_path / "engine")
    fake.change(images=[IMAGE])
    facts = {"argv": fake.argv, "version": "20.10.24", "rootless": False, "userns": False, "selinux": False}
    monkeypatch.setattr(Docker, "_engine_facts", lambda *_: facts)
    return fake


def test_presence_of_a_renamed_container_is_that_of_the_job(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), name="my-training")
    assert Docker(fake.argv).presence(run, make_job()).kind == "running"


def test_presence_of_a_strangers_container_of_that_name_is_absent(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(token="another"))
    assert Docker(fake.argv).presence(run, make_job()).kind == "absent"


def test_presence_of_an_earlier_attempts_container_is_absent(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), attempt=1, status="exited", ExitCode=0)
    fake.add(make_job(), attempt=2, name="renamed")
    assert Docker(fake.argv).presence(run, make_job(2)).kind == "running"
    assert Docker(fake.argv).presence(run, make_job(3)).kind == "absent"


def test_signal_and_remove_reach_a_renamed_container_by_its_id(run: RunPaths, fake: FakeEngine) -> None:
    made = fake.add(make_job(), name="my-training")
    Docker(fake.argv).signal(run, make_job(), "TERM")
    assert fake.asked[-1] == f"kill --signal TERM {made}"
    Docker(fake.argv).remove(run, make_job())
    assert fake.containers == []


def test_remove_takes_every_container_of_this_and_earlier_attempts_and_no_other(
    run: RunPaths, fake: FakeEngine
) -> None:
    fake.add(make_job(), attempt=1, name="renamed")
    fake.add(make_job(), attempt=2)
    later = fake.add(make_job(), attempt=3, name="later")
    strangers = fake.add(make_job(token="another"), name="strangers")
    Docker(fake.argv).remove(run, make_job(2))
    assert [one["Id"] for one in fake.containers] == [later, strangers]


def test_start_asks_the_engine_twice_and_names_no_container(run: RunPaths, fake: FakeEngine) -> None:
    """Between the lease of the GPUs and the job's start: `create`, and `start` of the id that it gave."""
    Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert [asked.split()[0] for asked in fake.asked] == ["create", "start"]
    assert fake.asked[-1] == "start c1"


def test_start_adopts_a_renamed_container_and_starts_it_once(run: RunPaths, fake: FakeEngine) -> None:
    docker = Docker(fake.argv)
    docker.create_and_start(run, make_job(), PREPARED, [], [])
    docker.create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["starts"] for one in fake.containers] == [1]


def test_start_of_an_attempt_whose_container_is_gone_is_refused(run: RunPaths, fake: FakeEngine) -> None:
    """The supervisor died behind the start, and somebody removed the container: the job has run."""
    Path(run.claim(1)).touch()
    with pytest.raises(RunFailed, match="started before") as failed:
        Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert failed.value.reason == "removed"
    assert fake.containers == []
