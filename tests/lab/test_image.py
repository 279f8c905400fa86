"""Images on a real engine: pulled by tag and digest, built from the real Dockerfile, and what is said when that fails."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.lab import Lab
from tests.lab.host.labhost import LabHost
from tests.lab.runtimes import Failed, JobOnHost
from tests.support.faultproxy import FaultProxy
from tests.support.waiting import eventually


@pytest.fixture
def small(lab: Lab, host: LabHost) -> Iterator[str]:
    """The registry's small image, which the host has not got."""
    yield f"{lab.registry.address}/small"
    forget(host, "small")


def forget(host: LabHost, word: str) -> None:
    assert host.engine
    for line in host.engine.docker("images", "--all", "--digests", "--format", "{{.Repository}} {{.ID}}").splitlines():
        name, image_id = line.split()
        if word in name:
            host.engine.docker("rmi", "--force", image_id)


def job_with(host: LabHost, image: str | None, **more: object) -> JobOnHost:
    return JobOnHost(
        host, {}, ["python", "-c", "import sys; print(sys.version_info[:2])"], more={"image": image, **more}
    )


def test_an_image_is_pulled_visibly_and_its_digest_is_recorded(lab: Lab, host: LabHost, small: str) -> None:
    job = job_with(host, f"{small}:1")
    prepared = job.ask("prepare")
    assert prepared["digest"] == lab.registry.digest()
    assert "Downloaded newer image" in job.prepare_log
    job.ask("start")
    assert job.end()["exit_code"] == 0
    assert job.log == "(3, 11)\n"  # the image has python3 alone: `python` is what there is


def test_an_image_by_digest_is_asked_for_once(lab: Lab, host: LabHost, small: str) -> None:
    job = job_with(host, f"{small}@{lab.registry.digest()}")
    first = job.ask("prepare")
    assert first["digest"] == lab.registry.digest()
    lab.registry.stop()  # what the host has is not asked for again
    try:
        assert job.ask("prepare") == first
    finally:
        lab.registry.start()


def test_a_later_attempt_has_the_image_of_the_first(lab: Lab, host: LabHost, small: str) -> None:
    """Whatever the name means by now, and when the host has forgotten the image too."""
    assert host.engine
    first = job_with(host, f"{small}:1").ask("prepare")
    host.engine.docker("tag", BASE_IMAGE, f"{small}:1")
    assert job_with(host, f"{small}:1").ask("prepare")["image_id"] != first["image_id"]
    second = job_with(host, f"{small}:1", attempt=2)
    second.write(second.run / "prepared.json", json.dumps(first))
    assert second.ask("prepare") == first
    host.engine.docker("rmi", "--force", first["image_id"])
    assert second.ask("prepare")["digest"] == lab.registry.digest()
    host.engine.docker("rmi", f"{small}:1")


def test_a_local_image_is_named_by_its_id(host: LabHost) -> None:
    prepared = job_with(host, BASE_IMAGE).ask("prepare")
    assert prepared["digest"] == prepared["image_id"]
    assert prepared["digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("small:none", "does not exist.*check its name"),
        ("nothing-here:1", "does not exist.*check its name"),
        ("UPPER:1", "the name of the image is invalid"),
    ],
)
def test_an_image_that_is_not_there_is_told_at_once(lab: Lab, host: LabHost, name: str, what: str) -> None:
    job = job_with(host, f"{lab.registry.address}/{name}")
    with pytest.raises(Failed, match=what) as failed:
        job.ask("prepare")
    assert failed.value.args[0] == "image"
    assert "again in" not in job.prepare_log


def test_a_pull_that_breaks_off_is_tried_again(lab: Lab, host: LabHost) -> None:
    with FaultProxy(lab.registry.port) as proxy:
        job = job_with(host, f"127.0.0.1:{proxy.port}/small:1")

        def break_off_and_come_back() -> None:
            eventually(lambda: "Downloading" in job.prepare_log or "Pulling fs layer" in job.prepare_log)
            proxy.refuse()
            proxy.reset()
            eventually(lambda: "retrying in 2 s" in job.prepare_log)
            proxy.heal()

        proxy.trickle(2_000_000)
        breaker = threading.Thread(target=break_off_and_come_back)
        breaker.start()
        assert job.ask("prepare")["digest"] == lab.registry.digest()
        breaker.join()
        assert "retrying in 2 s" in job.prepare_log
    forget(host, "small")


def test_a_registry_that_stays_away_is_named(lab: Lab, host: LabHost) -> None:
    with FaultProxy(lab.registry.port) as proxy:
        proxy.refuse()
        job = job_with(host, f"127.0.0.1:{proxy.port}/small:1")
        with pytest.raises(Failed, match=r"broke.*check the host's network"):
            job.ask("prepare")


def test_a_mirror_stands_in_for_the_hub(lab: Lab, host: LabHost) -> None:
    """The registry gets a name that the hub has too: `library/little`."""
    assert host.engine
    address = lab.registry.address
    host.engine.docker("pull", f"{address}/small:1")
    host.engine.docker("tag", f"{address}/small:1", f"{address}/library/little:1")
    host.engine.docker("push", f"{address}/library/little:1")
    forget(host, "small")
    forget(host, "little")
    profile = {"python": None, "pip_index": None, "registry_mirror": address}
    prepared = job_with(host, "little:1", profile=profile).ask("prepare")
    assert prepared["image"] == f"{address}/library/little:1"
    forget(host, "little")
    with urllib.request.urlopen(f"http://{address}/v2/_catalog") as answer:
        assert b"library/little" in answer.read()


def test_the_real_dockerfile_is_built_once(host: LabHost) -> None:
    job = JobOnHost(
        host, {}, ["python", "-c", "import lightning, torch; print(lightning.__version__, torch.__version__)"]
    )
    first = job.ask("prepare", timeout=900)
    assert first["image"].startswith("gpurun/pytorch:")
    said = job.prepare_log
    assert job.ask("prepare") == first
    assert job.prepare_log == said
    job.ask("start")
    assert job.end()["exit_code"] == 0
    assert job.log.startswith("2.6.")
    assert job.log.endswith(" 2.8.0+cu128\n")


def test_a_base_that_is_not_there_is_told(lab: Lab, host: LabHost) -> None:
    base = {"name": "v2.8", "reference": f"{lab.registry.address}/nothing:1", "torch": "2.8.0"}
    with pytest.raises(Failed, match="nothing:1: the image does not exist"):
        job_with(host, None, base=base).ask("prepare")
