"""Images that a project chooses: by a name of the catalogue, by its own Dockerfile, from a registry with a password."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.lab import Lab
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import ADA, SUE, User
from tests.lab.terminal import Terminal

OLDER = "gpurun-lab/pytorch:2.7.1"
GPURUN = [sys.executable, "-m", "gpurun"]


@pytest.fixture
def older(host: LabHost) -> str:
    """A base that says of itself what the v2.7 entry asks for."""
    assert host.engine
    version = "$(python3 -c 'import importlib.util as u; print(u.find_spec(\"torch\").submodule_search_locations[0])')/version.py"
    recipe = f"FROM {BASE_IMAGE}\nRUN sed -i s/2.8.0/2.7.1/ {version}\n"
    host.engine.docker("build", "--tag", OLDER, "-", stdin=recipe.encode())
    return OLDER


@pytest.fixture
def tidy(host: LabHost) -> Iterator[None]:
    """Images that a test has made or pulled go with it."""
    assert host.engine
    kept = set(host.engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split())
    yield
    for image in set(host.engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()) - kept:
        host.engine.docker("rmi", "--force", image)


@pytest.mark.usefixtures("pinned_image", "tidy")
def test_an_older_torch_by_its_name(laptop: Laptop, older: str) -> None:
    laptop.hosts_file.write_text(f'[hosts.ada.base_image]\n"v2.8" = "{BASE_IMAGE}"\n"v2.7" = "{older}"\n')
    say = "import lightning, torch\nprint(torch.__version__, lightning.__version__)\n"
    project = laptop.project({"gpurun.toml": 'image = "v2.7"\ngpus = 0\n', "say.py": say})
    told = laptop.gpurun("submit", "say.py", "-H", "ada", "-f", cwd=project, timeout=900)
    assert "2.7.1+cu128 2.6." in told.stdout
    record = laptop.gpurun("status", "--json", cwd=project).json["run"]
    assert record["image"].startswith("gpurun/pytorch:v2.7-")
    default = laptop.gpurun("submit", "say.py", "-H", "ada", "--image", "v2.8", "-f", cwd=project, timeout=600)
    assert "2.8.0+cu128 2.6." in default.stdout


@pytest.mark.usefixtures("pinned_image", "host", "tidy")
def test_a_base_with_another_torch_than_its_name_says(laptop: Laptop) -> None:
    laptop.hosts_file.write_text(f'[hosts.ada.base_image]\n"v2.7" = "{BASE_IMAGE}"\n')
    told = laptop.gpurun("host", "prepare", "ada", "--image", "v2.7", timeout=600, check=False)
    assert told.returncode == 125
    assert "the base has torch 2.8.0, not 2.7.1" in told.stderr


@pytest.mark.usefixtures("tidy")
def test_a_projects_own_dockerfile_is_built_once_for_each_content(laptop: Laptop, host: LabHost) -> None:
    files = {
        "gpurun.toml": 'dockerfile = "docker/job.Dockerfile"\ngpus = 0\n',
        "docker/job.Dockerfile": f"FROM {BASE_IMAGE}\nCOPY made.txt /opt/made\nRUN cat /opt/made /opt/made >/opt/twice\n",
        "made.txt": "of ours ",
        "say.py": "print(open('/opt/twice').read())\n",
        ".dockerignore": "*.py\n",
    }
    project = laptop.project(files)

    def run() -> tuple[str, str]:
        told = laptop.gpurun("submit", "say.py", "-H", "ada", "-f", cwd=project, timeout=300)
        return told.stdout.splitlines()[1], told.stderr  # behind the run's id

    said, stderr = run()
    assert said == "of ours of ours "
    assert "building the image, step 2 of 3" in stderr
    assert "COPY made.txt" not in stderr
    assert "COPY made.txt" in laptop.gpurun("logs", "--build", cwd=project).stdout
    said, stderr = run()
    assert said == "of ours of ours "
    assert "building" not in stderr
    (project / "made.txt").write_text("of theirs ")
    said, stderr = run()
    assert said == "of theirs of theirs "
    assert "building the image" in stderr
    (project / "docker/job.Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo no such luck && false\n")
    broken = laptop.gpurun("submit", "say.py", "-H", "ada", "-f", cwd=project, timeout=300, check=False)
    assert broken.returncode == 125
    assert "the engine could not build the image" in broken.stderr
    assert "no such luck" in broken.stderr
    assert "gpurun logs --build say-" in broken.stderr


@pytest.mark.parametrize("user", [ADA, SUE], ids=["docker", "sudo docker"])
def test_a_registry_with_a_password_lets_the_hosts_own_login_in(
    lab: Lab, host: LabHost, laptop: Laptop, tidy: None, user: User
) -> None:
    lab.registry.stop()
    lab.registry.start("ada", "s3cret")
    image = f"{lab.registry.address}/small:1"
    try:
        refused = laptop.gpurun("host", "prepare", user.alias, "--image", image, check=False)
        assert refused.returncode == 125
        assert "docker login on the host" in refused.stderr
        log_in(host, user, lab.registry.address)
        assert f"{image} is ready" in laptop.gpurun("host", "prepare", user.alias, "--image", image).stderr
    finally:
        lab.registry.stop()
        lab.registry.start()


def log_in(host: LabHost, user: User, registry: str) -> None:
    """What `docker login` leaves behind."""
    folder = host.home(user) / ".docker"
    folder.mkdir()
    auth = base64.b64encode(b"ada:s3cret").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    for path in (folder, folder / "config.json"):
        shutil.chown(path, user.uid, user.uid)


# --- ahead of time


@pytest.mark.usefixtures("host", "tidy")
def test_an_image_is_made_ready_ahead_of_time_with_a_bar(lab: Lab, laptop: Laptop) -> None:
    image = f"{lab.registry.address}/small:1"
    argv = [*GPURUN, "host", "prepare", "ada", "--image", image]
    with Terminal(argv, env={**laptop.env, "TERM": "xterm-256color"}, cwd=laptop.home) as person:
        person.expect("preparing ada")
        person.expect("layer")
        person.expect("is ready on ada, made in", 60)
        assert person.wait() == 0
    again = laptop.gpurun("host", "prepare", "ada", "--image", image, "--json").json
    assert (again["image"], again["digest"]) == (image, lab.registry.digest())
    project = laptop.project({"gpurun.toml": f'image = "{image}"\ngpus = 0\n', "say.py": "print('quick')\n"})
    assert "Pull" not in laptop.gpurun("submit", "say.py", "-H", "ada", "-f", cwd=project).stderr


@pytest.mark.usefixtures("tidy")
def test_what_was_begun_goes_on_without_us(lab: Lab, laptop: Laptop, host: LabHost) -> None:
    image = f"{lab.registry.address}/small:1"
    begun = laptop.start("host", "prepare", "ada", "--image", image)
    assert begun.stderr is not None
    assert begun.stderr.readline()  # the host has begun
    begun.send_signal(signal.SIGINT)
    assert begun.wait(20) == 130
    assert host.engine
    deadline = time.monotonic() + 60
    while image not in host.engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_host_without_an_engine_needs_no_image(bare_host: LabHost, laptop: Laptop) -> None:
    assert "bare has no engine" in laptop.gpurun("host", "prepare", "bare").stderr


# --- what the host cannot do


def test_a_driver_that_is_too_old_is_told_before_anything_is_sent(host: LabHost, laptop: Laptop) -> None:
    gpus = host.root / "run/lab/gpus"
    gpus.write_text(gpus.read_text().replace("570.133.20", "470.256.02"))
    project = laptop.project({"gpurun.toml": "", "say.py": "print(1)\n"})
    told = laptop.gpurun("submit", "say.py", "-H", "ada", cwd=project, check=False)
    assert told.returncode == 125
    assert "driver 470.256.02 is too old for the image v2.8 (PyTorch 2.8.0, CUDA 12.8)" in told.stderr
    assert "525.60.13 or later" in told.stderr
    assert not (host.home() / ".gpurun/runs").exists() or not any(Path(host.home() / ".gpurun/runs").iterdir())
    prepared = laptop.gpurun("host", "prepare", "ada", check=False)
    assert "too old" in prepared.stderr
    on_cpu = laptop.gpurun("submit", "say.py", "-H", "ada", "-g", "0", cwd=project)
    assert on_cpu.stdout
