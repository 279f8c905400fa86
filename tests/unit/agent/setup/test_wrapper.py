"""The wrapper, run by real shells: what a job finds set, and that nothing in a value is ever read as shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.setup import wrapper
from gpurun.agent.setup.wrapper import Places
from tests.support.part import only

JOB: Any = {
    "id": "train-7f3k",
    "token": "t0",
    "name": "träin",
    "project": {"name": "vision"},
    "attempt": 1,
    "resume": None,
}


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    made = HostPaths(str(tmp_path / "it's a root")).run("train-7f3k")
    wrapper.make_folders(made, "vision")
    return made


def test_named_data_is_gpurun_data_and_the_projects_own_folder_stays_known(run: RunPaths) -> None:
    mount = {"name": "imagenet", "source": "~/sets/imagenet", "target": "/data/imagenet", "readonly": True}
    job: Any = {**JOB, "data": "imagenet", "mounts": [mount]}
    own = run.host.data("vision")
    on_host = wrapper.last_settings(wrapper.on_host(run, "vision"), job)
    assert (on_host["GPURUN_DATA"], on_host["GPURUN_PROJECT_DATA"]) == (os.path.expanduser("~/sets/imagenet"), own)
    inside = wrapper.last_settings(wrapper.IN_CONTAINER, job)
    assert (inside["GPURUN_DATA"], inside["GPURUN_PROJECT_DATA"]) == ("/data/imagenet", "/gpurun/data")
    of_an_older_gpurun: Any = {**JOB, "mounts": [mount]}
    assert wrapper.last_settings(wrapper.IN_CONTAINER, of_an_older_gpurun)["GPURUN_DATA"] == "/gpurun/data"


def test_secrets_are_the_owners_alone(run: RunPaths) -> None:
    wrapper.write_env(run, {"TOKEN": "secret"})
    assert Path(run.env).stat().st_mode & 0o777 == 0o600
    assert Path(run.env).parent.stat().st_mode & 0o777 == 0o700
    assert Path(run.host.secrets).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("name", "value"), [("a-b", "x"), ("1A", "x"), ("", "x"), ("A B", "x"), ("A\n", "x"), ("A", "\0")]
)
def test_what_no_environment_can_hold_is_refused(name: str, value: str) -> None:
    with pytest.raises(AgentError) as refused:
        wrapper.exports({name: value})
    assert refused.value.code == "env"


def test_the_start_is_the_wrapper_with_the_log() -> None:
    places = Places("/w", "/out", "/ro", "/cache", "/data", "/sockets", "/secrets", "/board")
    assert wrapper.start(places, ["python", "x.py"]) == ["/bin/sh", "/ro/wrapper", "/out/log", "python", "x.py"]


def test_later_attempt_is_told_its_number_and_its_checkpoint(run: RunPaths) -> None:
    places = wrapper.on_host(run, "vision")
    told = wrapper.last_settings(places, only(**{**JOB, "attempt": 2, "resume": "/workspace/last.ckpt"}))
    assert (told["GPURUN_ATTEMPT"], told["GPURUN_RESUME"]) == ("2", "/workspace/last.ckpt")
    assert "GPURUN_RESUME" not in wrapper.last_settings(places, JOB)
