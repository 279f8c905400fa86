"""A project's dependencies, on a real engine and in real environments: made once, used again, torch held as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.users import ADA
from tests.lab.runtimes import Failed, JobOnHost, own
from tests.support import wheels
from tests.support.wheels import make_wheel

USE = """
import importlib.metadata, json, subprocess, torch, little
told = subprocess.run(["little"], capture_output=True, text=True, check=True).stdout
print(json.dumps([little.VERSION, told, importlib.metadata.version("torch")]))
"""


@pytest.fixture(params=["docker", "bare"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def box(runtime: str, request: pytest.FixtureRequest) -> Iterator[LabHost]:
    """The host for the runtime; the layers that a test left in its engine are taken away."""
    host: LabHost = request.getfixturevalue("host" if runtime == "docker" else "bare_host")
    yield host
    if host.engine:
        for line in host.engine.docker("images", "gpurun/layer", "--format", "{{.Repository}}:{{.Tag}}").split():
            host.engine.docker("rmi", "--force", line)


def job_with(
    box: LabHost, runtime: str, requirements: str, kind: str = "requirements", run: str = "train-7f3k", **files: str
) -> JobOnHost:
    file = {"requirements": "requirements.txt", "uv": "uv.lock", "pyproject": "pyproject.toml"}[kind]
    dependencies = {"kind": kind, "file": file}
    if kind == "pyproject":
        dependencies["requirements"] = requirements.split("\n")  # type: ignore[assignment]
    job = JobOnHost(
        box,
        {"train.py": USE, file: requirements, **files},
        ["python", "train.py"],
        runtime=runtime,
        id=run,
        more={"image": BASE_IMAGE, "dependencies": dependencies},
    )
    wheels = job.run / "workspace/wheels"
    make_wheel(wheels, "little", "1.0")
    make_wheel(wheels, "modern", "1.0", ["torch>=2.9"])
    own(box.home(), ADA)
    return job


def result(job: JobOnHost) -> list[str]:
    job.ask("start")
    assert job.end()["exit_code"] == 0, job.log
    told: list[str] = json.loads(job.log)
    return told


def test_dependencies_are_installed_once_and_torch_is_held(box: LabHost, runtime: str) -> None:
    requirements = "torch>=2.0  # any\n-r more.txt\n-e .\n"
    more = {"more.txt": "./wheels/little-1.0-py3-none-any.whl\n"}
    job = job_with(box, runtime, requirements, **more)
    first = job.ask("prepare")
    assert "-e . is the project itself" in job.prepare_log
    assert result(job) == ["1.0", "1.0\n", "2.8.0"]

    again = job_with(box, runtime, requirements, run="train-9k2m", **more)
    assert again.ask("prepare")["environment"] == first["environment"]
    assert "pip" not in again.prepare_log.lower()

    other = job_with(box, runtime, requirements + "--no-binary nothing\n", run="train-3x1p", **more)
    assert other.ask("prepare")["environment"] != first["environment"]


def test_a_layer_keeps_what_the_image_says_and_nothing_of_pip(host: LabHost) -> None:
    assert host.engine
    job = job_with(host, "docker", "./wheels/little-1.0-py3-none-any.whl\n")
    made = job.ask("prepare")
    told = [json.loads(host.engine.docker("inspect", name))[0] for name in (made["image_id"], BASE_IMAGE)]
    for key in ("Env", "Entrypoint", "WorkingDir"):
        assert told[0]["Config"][key] == told[1]["Config"][key]
    assert "layer_install" not in json.dumps(told[0]["Config"])
    assert host.engine.containers() == []
    assert not (job.run / "layer.json").exists()


def test_nothing_is_made_when_all_is_there(host: LabHost) -> None:
    job = job_with(host, "docker", "torch\nnumpy; python_version < '4'\n")
    assert job.ask("prepare")["environment"] is None
    assert "are already installed" in job.prepare_log
    log = job.prepare_log
    assert job.ask("prepare")["environment"] is None
    assert job.prepare_log == log


def test_another_torch_is_refused_in_one_line(box: LabHost, runtime: str) -> None:
    where = "the image" if runtime == "docker" else "the host's Python"
    with pytest.raises(Failed) as failed:
        job_with(box, runtime, "torch>=2.9\n").ask("prepare")
    reason, what, next_step = failed.value.args
    assert reason == "dependencies"
    assert what == f"requirements.txt requires torch>=2.9, but {where} has torch 2.8.0"
    assert "change it there, or name a" in next_step


def test_what_needs_another_torch_is_refused_in_one_line(box: LabHost, runtime: str) -> None:
    with pytest.raises(Failed) as failed:
        job_with(box, runtime, "./wheels/modern-1.0-py3-none-any.whl\n").ask("prepare")
    reason, what, _ = failed.value.args
    assert reason == "dependencies"
    assert what == "requirements.txt: modern 1.0 depends on torch>=2.9; the base has torch==2.8.0"


def test_what_cannot_be_had_is_told_in_pips_words(box: LabHost, runtime: str) -> None:
    job = job_with(box, runtime, "--no-index\nno-such-thing-anywhere==1.0\n")
    with pytest.raises(Failed, match="No matching distribution found for no-such-thing-anywhere") as failed:
        job.ask("prepare")
    assert failed.value.args[0] == "dependencies"
    assert "no-such-thing-anywhere" in job.prepare_log


def test_the_requirements_of_a_pyproject(box: LabHost, runtime: str) -> None:
    job = job_with(box, runtime, "little @ file:wheels/little-1.0-py3-none-any.whl\ntorch", kind="pyproject")
    job.ask("prepare")
    assert result(job)[0] == "1.0"


def test_a_lock_of_uv(box: LabHost, runtime: str) -> None:
    """uv comes from the package index: neither the base nor the bare host has it."""
    lock = Path(__file__).parent / "data/uv"
    files = {"pyproject.toml": (lock / "pyproject.toml").read_text()}
    job = job_with(box, runtime, (lock / "uv.lock").read_text(), kind="uv", **files)
    job.ask("prepare", timeout=600)
    assert result(job) == ["1.0", "1.0\n", "2.8.0"]


def test_a_half_made_environment_is_made_again(bare_host: LabHost) -> None:
    job = job_with(bare_host, "bare", "./wheels/little-1.0-py3-none-any.whl\n")
    made = bare_host.home() / job.ask("prepare")["environment"].removeprefix(f"{ADA.home}/")
    (made / "gpurun.json").unlink()
    (made / "bin/little").unlink()
    job.ask("prepare")
    assert result(job)[1] == "1.0\n"


# A build backend that needs no other package: it makes one wheel.
BACKEND = """
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from wheels import make_wheel


def build_wheel(folder, settings=None, metadata=None):
    return make_wheel(pathlib.Path(folder), "little").name
"""


def test_a_private_repository_is_reached_by_the_users_ssh_agent(box: LabHost, runtime: str) -> None:
    """The key is in the agent alone; the host knows the key of the server that has the repository."""
    source = f"git+ssh://{ADA.name}@127.0.0.1:{box.sshd.port}{ADA.home}/little.git"
    job = job_with(box, runtime, f"{source}\n")
    own(box.home(), ADA)
    make_repository(box, job)
    job.environ["SSH_AUTH_SOCK"] = lend_key(box, job)
    job.ask("prepare")
    assert result(job)[0] == "1.0"


def make_repository(box: LabHost, job: JobOnHost) -> None:
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND,
        "wheels.py": (Path(wheels.__file__)).read_text(),
    }
    for name, text in files.items():
        job.write(box.home() / "little.git" / name, text)
    who = "-c user.name=Ada -c user.email=ada@example.org"
    box.run("sh", "-c", f"cd ~/little.git && git init -q && git add . && git {who} commit -q -m 1")


def lend_key(box: LabHost, job: JobOnHost) -> str:
    """An agent with a key that opens this host; its socket."""
    socket = "/tmp/ada-agent"
    script = f"""
        ssh-keygen -q -t ed25519 -N '' -f ~/key && cat ~/key.pub >>~/.ssh/authorized_keys
        ssh-agent -a {socket} >/dev/null </dev/null 2>&1
        SSH_AUTH_SOCK={socket} ssh-add -q ~/key && rm ~/key
    """
    box.run("sh", "-ec", script)
    job.write(box.home() / ".ssh/known_hosts", f"{box.sshd.known_hosts_line}\n")
    return socket
