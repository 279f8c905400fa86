"""Names of images, what is built from what, and which failures of a pull are tried again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import RunFailed
from gpurun.agent.host.engine import Engine, EngineError
from gpurun.agent.images import image
from gpurun.agent.images.image import Image
from tests.unit.agent.scripted_engine import ScriptedEngine

DIGEST = "sha256:" + "a" * 64
ID = "sha256:" + "b" * 64
THERE = json.dumps({"Id": ID, "RepoDigests": [f"pytorch/pytorch@{DIGEST}"]})
ABSENT = "Error: No such image: pytorch/pytorch:2.8.0"
NAME = "pytorch/pytorch:2.8.0"


@pytest.mark.parametrize(
    ("reference", "at_mirror"),
    [
        ("ubuntu", "mirror:5000/library/ubuntu"),
        ("ubuntu:24.04", "mirror:5000/library/ubuntu:24.04"),
        ("pytorch/pytorch:2.8.0", "mirror:5000/pytorch/pytorch:2.8.0"),
        ("docker.io/pytorch/pytorch:2.8.0", "mirror:5000/pytorch/pytorch:2.8.0"),
        (f"pytorch/pytorch@{DIGEST}", f"mirror:5000/pytorch/pytorch@{DIGEST}"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1"),
        (ID, ID),
    ],
)
def test_a_mirror_stands_in_for_the_hub_alone(reference: str, at_mirror: str) -> None:
    assert image.mirrored(reference, "mirror:5000/") == at_mirror
    assert image.mirrored(reference, None) == reference


def test_image_of_an_earlier_attempt_is_pulled_by_digest_where_a_registry_has_it() -> None:
    from_registry = {"digest": DIGEST, "base_id": ID}
    assert image.pinned("host:5000/a/b:1", from_registry) == f"host:5000/a/b@{DIGEST}"
    assert image.pinned("mine:1", {"digest": ID, "base_id": ID}) == "mine:1"
    assert image.pinned("mine:1", {"digest": DIGEST}) == "mine:1"  # prepared by an older gpurun
    assert image.pinned("mine:1", {}) == "mine:1"


@pytest.mark.parametrize(
    ("reference", "repository"),
    [("a", "a"), ("a:1", "a"), ("host:5000/a/b:1@" + DIGEST, "host:5000/a/b"), ("host:5000/a/b", "host:5000/a/b")],
)
def test_the_repository_of_a_reference(reference: str, repository: str) -> None:
    assert image.repository(reference) == repository


@pytest.mark.parametrize(
    ("digests", "digest"),
    [
        ([f"other/x@{ID}", f"pytorch/pytorch@{DIGEST}"], DIGEST),
        ([f"other/x@{DIGEST}"], DIGEST),
        ([], ID),
        (None, ID),
    ],
)
def test_the_digest_is_that_of_the_repository_that_was_asked_for(digests: Any, digest: str) -> None:
    assert image.parse_image(NAME, {"Id": ID, "RepoDigests": digests}) == Image(NAME, digest, ID)


def test_what_is_built() -> None:
    arguments = {"BASE": "base@sha256:1", "TORCH": "2.8.0", "PIP_INDEX_URL": None}
    assert image.build("/agent/image", "gpurun/pytorch:1a", arguments) == [
        "build", "--network", "host", "--tag", "gpurun/pytorch:1a", "--build-arg", "BASE=base@sha256:1",
        "--build-arg", "TORCH=2.8.0", "/agent/image",
    ]  # fmt: skip
    with_index = image.build("/c", "t", {"PIP_INDEX_URL": "https://index/simple"}, "/c/my Dockerfile")
    assert with_index[-5:] == ["--build-arg", "PIP_INDEX_URL=https://index/simple", "--file", "/c/my Dockerfile", "/c"]


def test_the_tag_follows_the_recipe_and_the_base(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM ${BASE}\n")
    (tmp_path / "requirements.lock").write_text("a==1\n")
    first = image.content_hash(str(tmp_path), "one", "2.8.0")
    (tmp_path / "images.toml").write_text("# another entry makes no image anew\n")
    assert image.content_hash(str(tmp_path), "one", "2.8.0") == first
    assert image.content_hash(str(tmp_path), "two", "2.8.0") != first
    assert image.content_hash(str(tmp_path), "one", "2.7.1") != first
    (tmp_path / "requirements.lock").write_text("a==2\n")
    assert image.content_hash(str(tmp_path), "one", "2.8.0") != first


def test_the_real_recipe_is_found() -> None:
    tag = image.own_tag({"name": "v2.8", "reference": "one", "torch": "2.8.0"})
    assert tag.startswith("gpurun/pytorch:v2.8-")


def test_a_projects_image_follows_all_that_it_could_copy(tmp_path: Path) -> None:
    script = tmp_path / "sub" / "run.sh"
    script.parent.mkdir()
    script.write_text("true\n")
    (tmp_path / "link").symlink_to("sub")
    seen = [image.tree_hash(str(tmp_path), "Dockerfile")]
    os.utime(script, (1, 1))  # sent anew, and the same
    assert image.tree_hash(str(tmp_path), "Dockerfile") == seen[0]
    script.chmod(0o755)
    seen.append(image.tree_hash(str(tmp_path), "Dockerfile"))
    script.write_text("tru2\n")
    seen.append(image.tree_hash(str(tmp_path), "Dockerfile"))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("sup")
    seen.append(image.tree_hash(str(tmp_path), "Dockerfile"))
    seen.append(image.tree_hash(str(tmp_path), "other/Dockerfile"))
    assert len(set(seen)) == 5


def test_an_engine_under_sudo_is_told_of_the_users_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    under_sudo = Engine(["sudo", "-n", "docker"])
    assert under_sudo.with_login() == []
    (tmp_path / "config.json").write_text('{"auths": {"ghcr.io": {"auth": "eA=="}}}')
    assert under_sudo.with_login() == ["--config", str(tmp_path)]
    assert Engine(["docker"]).with_login() == []  # it looks there by itself


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
    wanted = {"image": None, "base": {"name": "v2.8", "reference": NAME, "torch": "2.8.0"}, "profile": {}}
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
    assert b"again in 2 s" in said
    assert b"again in 5 s" in said
    assert sum(slept) == 7.0


@pytest.mark.parametrize(
    ("said", "reason", "what", "next_step"),
    [
        ("manifest for x not found: manifest unknown", "image", "there is no such image", "docker login"),
        ("pull access denied for x, repository does not exist or may ...", "image", "or it is private", "docker login"),
        ("unauthorized: authentication required", "image", "wants a login", "docker login"),
        ("toomanyrequests: You have reached your pull rate limit", "image", "refuses more pulls", "registry_mirror"),
        ("write /x: no space left on device", "disk", "disk is full", "make room"),
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
