"""Names of images, what is built from what, and which failures of a pull are tried again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.host.engine import Engine
from gpurun.agent.images import image
from gpurun.agent.images.image import Image
from tests.support.part import only

DIGEST = "sha256:" + "a" * 64
ID = "sha256:" + "b" * 64
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
    from_registry = only(digest=DIGEST, base_id=ID)
    assert image.pinned("host:5000/a/b:1", from_registry) == f"host:5000/a/b@{DIGEST}"
    assert image.pinned("mine:1", only(digest=ID, base_id=ID)) == "mine:1"
    assert image.pinned("mine:1", only(digest=DIGEST)) == "mine:1"  # prepared by an older gpurun
    assert image.pinned("mine:1", None) == "mine:1"


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
    tag = image.own_tag(only(name="v2.8", reference="one", torch="2.8.0"))
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
