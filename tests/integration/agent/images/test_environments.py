"""Which Python a job gets where there is no engine, and what its environment sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import RunFailed
from gpurun.agent.images import environments
from gpurun.agent.images.environments import Environment
from gpurun.agent.paths import HostPaths, RunPaths
from tests.support.wheels import make_wheel


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))
    made = HostPaths(str(tmp_path / "root")).run("train-7f3k")
    Path(made.workspace).mkdir(parents=True)
    return made


def job(python: str, *requirements: str) -> Any:
    wanted = {"kind": "pyproject", "file": "pyproject.toml", "requirements": list(requirements)}
    return {"profile": {"python": python, "pip_index": None}, "dependencies": wanted if requirements else None}


def ensure(run: RunPaths, asked: Any) -> tuple[Environment, str]:
    said: list[bytes] = []
    return environments.ensure(run, asked, said.append), b"".join(said).decode()


def fake_python(path: Path, version: str, torch: str | None) -> Path:
    told: Any = {
        "version": version,
        "torch": torch,
        "prefix": str(path.parent),
        "venv": False,
        "packages": [],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told)}\nEND\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Pythons, each in one of its own: those that are looked at."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(environments, "_PLACES", (str(tmp_path / "*/python"),))
    return tmp_path


def test_the_first_python_that_has_torch_is_chosen(pythons: Path) -> None:
    fake_python(pythons / "a/python", "3.12.1", None)
    fake_python(pythons / "b/python", "3.11.2", "2.8.0")
    fake_python(pythons / "c/python", "3.10.0", "2.7.0")
    assert environments.choose(None)["path"] == str(pythons / "b/python")
    assert [(found["version"], found["torch"]) for found in environments.find_pythons()] == [
        ("3.12.1", None), ("3.11.2", "2.8.0"), ("3.10.0", "2.7.0"),
    ]  # fmt: skip


def test_without_torch_anywhere_it_is_the_first(pythons: Path) -> None:
    fake_python(pythons / "a/python", "3.7.9", "1.13.0")  # too old
    fake_python(pythons / "b/python", "3.11.2", None)
    assert environments.choose(None)["path"] == str(pythons / "b/python")


def test_the_profiles_python_wins(pythons: Path) -> None:
    fake_python(pythons / "a/python", "3.12.1", "2.8.0")
    named = fake_python(pythons / "mine/bin/python", "3.11.2", None)
    assert environments.choose(str(named))["path"] == str(named)
    with pytest.raises(RunFailed, match="does not run on the host"):
        environments.choose(str(pythons / "gone"))


def test_a_host_without_python(pythons: Path) -> None:
    with pytest.raises(RunFailed, match=r"no Python >= 3\.8"):
        environments.choose(None)


def test_a_venv_sees_its_parents_packages(run: RunPaths) -> None:
    """This Python is a venv: pytest is in it, and not in the Python below it."""
    made, said = ensure(run, job(sys.executable))
    assert sys.prefix in said
    subprocess.run([made.python, "-c", "import pytest"], check=True, cwd="/")
    assert made.folders == [f"{made.path}/bin", f"{sys.prefix}/bin"]


def test_an_environment_is_made_once_for_each_content(run: RunPaths, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", "little")
    first, said = ensure(run, job(sys.executable, f"little @ file:{wheel}"))
    assert "little" in said
    told = subprocess.run([f"{first.path}/bin/little"], capture_output=True, text=True, check=True)
    assert told.stdout == "1.0\n"
    again, said = ensure(run, job(sys.executable, f"little @ file:{wheel}"))
    assert again == first
    assert "pip" not in said.lower().replace(sys.prefix, "")
    other, _ = ensure(run, job(sys.executable, "pytest"))
    assert other != first


def test_an_environment_that_was_half_made_is_made_again(run: RunPaths) -> None:
    made, _ = ensure(run, job(sys.executable))
    Path(made.path, environments.MARKER).unlink()
    Path(made.path, "leftover").touch()
    ensure(run, job(sys.executable))
    assert not Path(made.path, "leftover").exists()


def test_what_cannot_be_installed_leaves_no_environment(run: RunPaths, tmp_path: Path) -> None:
    asked = job(sys.executable, f"little @ file:{tmp_path}/gone-1.0-py3-none-any.whl")
    for _ in range(2):
        with pytest.raises(RunFailed, match="pip could not install") as failed:
            ensure(run, asked)
        assert failed.value.reason == "dependencies"
