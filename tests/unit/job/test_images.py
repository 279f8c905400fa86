"""The images that go by a name, and what a host's profile says in their place."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gpurun.agent.schema.job import Base
from gpurun.config.hosts import HostProfile
from gpurun.errors import UsageError
from gpurun.job import images
from gpurun.remote import bundle


def test_every_entry_is_whole_and_pinned() -> None:
    for name, base in images.read().images.items():
        assert re.fullmatch(r"pytorch/pytorch:\S+@sha256:[0-9a-f]{64}", base.base)
        assert base.base.startswith(f"pytorch/pytorch:{base.torch}-cuda{base.cuda}-")
        assert base.torch.startswith(name.removeprefix("v") + ".")
        assert base.room > 5_000_000_000


def test_the_dockerfile_stands_on_the_default() -> None:
    recipe = (bundle.image_folder() / "Dockerfile").read_text()
    default = images.read().default
    assert default.name == "v2.8"
    assert f"ARG BASE={default.base}\n" in recipe
    assert f"ARG TORCH={default.torch}\n" in recipe
    constraints = (bundle.image_folder() / "requirements.in").read_text()
    assert f"torch=={default.torch}\ntorchvision=={default.torchvision}\n" in constraints


def host(**told: Any) -> HostProfile:
    return HostProfile("box", **told)


def base_of(image: str | None, host: HostProfile | None) -> Base:
    base = images.wanted(image, host)["base"]
    assert base is not None
    return base


def test_what_is_wanted() -> None:
    default = images.wanted(None, None)
    assert default["image"] is None
    base = base_of(None, None)
    assert (base["name"], base["torch"], base["asked"]) == ("v2.8", "2.8.0", False)
    assert images.wanted("v2.7", host())["image"] is None
    older = base_of("v2.7", host())
    assert (older["torch"], older["asked"]) == ("2.7.1", True)
    assert images.wanted("ghcr.io/a/b:v2.7", None) == {"image": "ghcr.io/a/b:v2.7", "base": None}


def test_a_host_has_its_own_bases() -> None:
    one = host(base_image="mirror/pytorch:2.8")
    assert base_of(None, one)["reference"] == "mirror/pytorch:2.8"
    assert base_of("v2.8", one)["reference"] == "mirror/pytorch:2.8"
    assert "2.7.1-cuda" in base_of("v2.7", one)["reference"]
    several = host(base_image={"v2.7": "mirror/pytorch:2.7"})
    assert base_of("v2.7", several)["reference"] == "mirror/pytorch:2.7"
    assert "2.8.0-cuda" in base_of(None, several)["reference"]


def test_a_run_that_goes_on_elsewhere_has_that_hosts_base() -> None:
    base = base_of("v2.8", host(base_image="mirror/pytorch:2.8"))
    assert images.for_host(base, host()) == {**base, "reference": images.read().default.base}
    assert images.for_host(base, host(base_image="other/pytorch")) == {**base, "reference": "other/pytorch"}
    assert images.for_host(None, host()) is None
    assert images.for_host({**base, "name": "v1.0"}, host()) == {**base, "name": "v1.0"}


def test_a_name_that_is_none_lists_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"there is no v2\.9") as told:
        images.wanted("v2.9", None)
    assert "v2.7, v2.8, v2.11" in told.value.next_step
