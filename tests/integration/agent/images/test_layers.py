"""What decides whether dependencies are installed anew, and what an installer's end means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import RunFailed
from gpurun.agent.host.engine import EngineError
from gpurun.agent.images import docker_layers
from gpurun.agent.images.image import Image
from gpurun.agent.paths import HostPaths
from tests.support.part import only
from tests.support.scripted_engine import Line, ScriptedEngine
from tests.unit.agent.images.test_layers import JOB

DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
BROKEN_OFF = 'time="2026-11-26T12:40:08Z" level=error msg="error waiting for container: unexpected EOF"'
RUNS = '{"Id": "c1", "State": {"Status": "running", "ExitCode": 0}}'
ENDED = '{"Id": "c1", "State": {"Status": "exited", "ExitCode": 125}}'


def install(folder: Path, *answers: Line) -> bool:
    """Pip in a container, which was started: the engine's `answers` from then on."""
    run = HostPaths(str(folder / "root")).run("train-7f3k")
    Path(run.workspace).mkdir(parents=True)
    before: list[Line] = [
        ("container inspect", 1, "", "Error: No such container: c"),
        ("image inspect", 0, '{"Id": "sha256:1a"}', ""),
        ("create", 0, "c1", ""),
    ]
    engine = ScriptedEngine(folder, [*before, *answers, ("rm", 1, "", DOWN)]).engine
    job: Any = {**JOB, "resources": {}}
    return docker_layers._install(
        engine, only, run, job, job["dependencies"], Image("x", "y", "sha256:1a"), "c", "tag", lambda _: None
    )


@pytest.mark.parametrize(
    "then", [[("version", 1, "", DOWN)], [("version", 0, "20.10", ""), ("container inspect", 0, RUNS, "")]]
)
def test_installation_whose_engine_goes_away_is_no_failure_of_the_dependencies(
    tmp_path: Path, then: list[Line]
) -> None:
    """It is away still, or back already, with the container as it was."""
    with pytest.raises(EngineError) as away:
        install(tmp_path, ("start --attach --interactive c1", 125, "", BROKEN_OFF), *then)
    assert away.value.is_away


def test_installation_that_fails_by_itself_is_told_as_that(tmp_path: Path) -> None:
    answers = [("version", 0, "20.10", ""), ("container inspect", 0, ENDED, "")]
    with pytest.raises(RunFailed) as failed:
        install(tmp_path, ("start --attach --interactive c1", 125, "no such package", ""), *answers)
    assert (failed.value.reason, failed.value.what) == ("dependencies", "no such package")
