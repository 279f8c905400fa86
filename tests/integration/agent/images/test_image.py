"""Names of images, what is built from what, and which failures of a pull are tried again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpurun.agent.errors import RunFailed
from gpurun.agent.host.engine import EngineError
from gpurun.agent.images import image
from gpurun.agent.images.image import Image
from tests.support.part import only
from tests.support.scripted_engine import ScriptedEngine
from tests.unit.agent.images.test_image import DIGEST, ID, NAME

THERE = json.dumps({"Id": ID, "RepoDigests": [f"pytorch/pytorch@{DIGEST}"]})
ABSENT = "Error: No such image: pytorch/pytorch:2.8.0"


def pull(engine: ScriptedEngine) -> tuple[Image, bytes, list[float]]:
    said: list[bytes] = []
    slept: list[float] = []
    found = image.ensure_present(engine.engine, NAME, said.append, slept.append)
    return found, b"".join(said), slept


def test_an_image_that_is_there_is_not_pulled(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, [("image inspect", 0, THERE, "")])
    assert pull(engine)[0] == Image(NAME, DIGEST, ID)
    assert engine.asked == [f"image inspect --format {{{{json .}}}} {NAME}"]


def test_what_is_done_for_an_image_that_is_not_there_is_told(tmp_path: Path) -> None:
    absent, there = ("image", 1, "", ABSENT), ("image", 0, THERE, "")
    answers = [absent, absent, absent, ("pull", 0, "", ""), there, ("build", 0, "", ""), there, there]
    engine = ScriptedEngine(tmp_path, answers).engine
    wanted = image.Wanted(None, only(name="v2.8", reference=NAME, torch="2.8.0"))
    told: list[str] = []
    for _ in range(2):  # the second time it is there: nothing takes long
        image.ensure(engine, wanted, "", lambda _: None, step=told.append)
    assert told == [f"pulling {NAME}", f"building the image on {NAME}"]


WELL = ("version", 0, "20.10.24\n", "")
DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


@pytest.mark.parametrize("said", ["unexpected EOF", DOWN, "context canceled"])
@pytest.mark.parametrize("times", [1, 4])
def test_pull_whose_engine_is_away_is_no_failure_of_the_pull(tmp_path: Path, said: str, times: int) -> None:
    broken = ("pull", 1, "a1: Downloading\r", said)
    answers = [("image", 1, "", ABSENT), *[broken, WELL] * (times - 1), broken, ("version", 1, "", DOWN)]
    with pytest.raises(EngineError) as away:
        pull(ScriptedEngine(tmp_path, answers))
    assert away.value.is_away


def test_pull_that_breaks_off_for_good_under_an_engine_that_answers_is_the_networks(tmp_path: Path) -> None:
    broken = ("pull", 1, "", "unexpected EOF")
    with pytest.raises(RunFailed) as failed:
        pull(ScriptedEngine(tmp_path, [("image", 1, "", ABSENT), *[broken, WELL] * 4]))
    assert (failed.value.reason, "registry" in failed.value.what) == ("image", True)


def test_build_whose_engine_is_away_is_no_failure_of_the_build(tmp_path: Path) -> None:
    broken = ("build", 1, "Step 2/2 : RUN sleep 3\n", "unexpected EOF")
    engine = ScriptedEngine(tmp_path, [broken, WELL, broken, ("version", 1, "", DOWN)]).engine
    with pytest.raises(EngineError) as away:
        image._build(engine, ["build", "."], lambda _: None, lambda _: None)
    assert away.value.is_away


def test_a_pull_that_breaks_off_is_tried_again_and_shown_raw(tmp_path: Path) -> None:
    broken = ("pull", 1, "a1: Downloading\r", "unexpected EOF")
    answers = [
        ("image", 1, "", ABSENT),
        broken,
        WELL,
        broken,
        WELL,
        ("pull", 0, "Status: ok\n", ""),
        ("image", 0, THERE, ""),
    ]
    found, said, slept = pull(ScriptedEngine(tmp_path, answers))
    assert found.digest == DIGEST
    assert said.count(b"a1: Downloading\r") == 2
    assert b"retrying in 2 s" in said
    assert b"retrying in 5 s" in said
    assert sum(slept) == 7.0


@pytest.mark.parametrize(
    ("said", "reason", "what", "next_step"),
    [
        ("manifest for x not found: manifest unknown", "image", "the image does not exist", "docker login"),
        ("pull access denied for x, repository does not exist or may ...", "image", "or is private", "docker login"),
        ("unauthorized: authentication required", "image", "requires a login", "docker login"),
        ("toomanyrequests: You have reached your pull rate limit", "image", "rate limit for pulls", "registry_mirror"),
        ("write /x: no space left on device", "disk", "disk is full", "free space"),
    ],
)
def test_what_another_try_cannot_mend_is_told_at_once(
    tmp_path: Path, said: str, reason: str, what: str, next_step: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        pull(ScriptedEngine(tmp_path, [("image", 1, "", ABSENT), ("pull", 1, "", said)]))
    assert failed.value.reason == reason
    assert what in failed.value.what
    assert failed.value.what.startswith(NAME)
    assert next_step in failed.value.next_step


def test_a_stop_ends_a_pull(tmp_path: Path) -> None:
    """`say` raises when a stop was asked for, also while the engine is silent."""
    engine = ScriptedEngine(tmp_path, [("image", 1, "", ABSENT)], hang="pull")

    def stopped(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image.ensure_present(engine.engine, NAME, stopped)
