"""Driver and disk against an image, before anything is pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.images import preflight
from gpurun.agent.verbs import prepare
from tests.support.part import only

BASE: Any = {
    "name": "v2.8", "reference": "base@sha256:1", "torch": "2.8.0", "cuda": "12.8", "driver": "525.60.13", "room": 1 << 62,
}  # fmt: skip


@pytest.mark.parametrize("driver", ["525.60.13", "570.86.15", "1000.1", None])
def test_a_driver_that_does(driver: str | None) -> None:
    preflight.check_driver(BASE, driver)


@pytest.mark.parametrize("driver", ["470.256.02", "525.60.2", "525"])
def test_a_driver_that_is_too_old_is_told_with_both_numbers(driver: str) -> None:
    with pytest.raises(AgentError) as told:
        preflight.check_driver(BASE, driver)
    assert told.value.code == "driver_too_old"
    assert f"driver {driver} is too old for the image v2.8" in told.value.what
    assert "525.60.13 or later" in told.value.what
    assert "--image" in told.value.next_step


def test_project_that_does_not_fit_is_told_what_it_needs_and_what_is_free() -> None:
    """Both in units in which they are no zeros."""
    with pytest.raises(AgentError) as told:
        prepare._check_disk(40_000, only(disk={"free": 31_000_000}, root="/data"))
    assert told.value.what == (
        "the host's disk has 31.0 MB free, but the run needs 1.1 GB: 40.0 kB for the project, and 1.1 GB that stay free"
    )
    assert told.value.where == "/data"


def test_the_engine_is_not_asked_while_there_is_room(tmp_path: Path) -> None:
    preflight.check_room(only(**{**BASE, "room": 1}), only(argv=["/nowhere/docker"], root=str(tmp_path)))


def test_a_disk_that_is_not_seen_here_is_not_judged() -> None:
    preflight.check_room(BASE, only(argv=["/nowhere/docker"], root="/no/such/place"))
    preflight.check_room(BASE, only(argv=["/nowhere/docker"], root=None))


def test_only_gpuruns_images_on_an_engine_are_judged() -> None:
    preflight.check(BASE, only(engine=None, driver="1.0"), gpus=True)
    preflight.check(None, only(engine={"argv": ["/nowhere/docker"]}, driver="1.0"), gpus=True)
