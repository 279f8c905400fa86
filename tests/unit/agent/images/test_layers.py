"""What decides whether dependencies are installed anew, and what an installer's end means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import RunFailed
from gpurun.agent.images import docker_layers, layer_install, layers
from gpurun.agent.paths import HostPaths
from gpurun.agent.programs import Result

REQUIREMENTS: Any = {"kind": "requirements", "file": "requirements.txt"}
JOB: Any = {"dependencies": REQUIREMENTS, "profile": {"pip_index": None}}
RUN = HostPaths("/home/ada/.gpurun").run("train-7f3k")


def write(project: Path, **files: str) -> None:
    for name, text in files.items():
        (project / name.replace("_", ".")).write_text(text)


def test_the_same_content_has_the_same_print(tmp_path: Path) -> None:
    write(tmp_path, requirements_txt="rich # one\n-r more.txt\n", more_txt="numpy\n", train_py="1")
    first = layers.fingerprint(str(tmp_path), REQUIREMENTS)
    write(tmp_path, requirements_txt="# two\nrich\n-r more.txt\n", train_py="2")
    assert layers.fingerprint(str(tmp_path), REQUIREMENTS) == first


@pytest.mark.parametrize(
    "changed", [{"requirements_txt": "rich>1\n-r more.txt\n"}, {"more_txt": "numpy<2\n"}, {"a_whl": "2"}]
)
def test_another_content_has_another_print(tmp_path: Path, changed: dict[str, str]) -> None:
    write(tmp_path, requirements_txt="rich\n-r more.txt\n", more_txt="numpy\n./a.whl\n", a_whl="1")
    first = layers.fingerprint(str(tmp_path), REQUIREMENTS)
    write(tmp_path, **changed)
    assert layers.fingerprint(str(tmp_path), REQUIREMENTS) != first


def test_a_lock_and_a_list_have_prints_too(tmp_path: Path) -> None:
    write(tmp_path, uv_lock="version = 1\n")
    lock = layers.fingerprint(str(tmp_path), {"kind": "uv", "file": "uv.lock"})
    one, two = (
        layers.fingerprint(str(tmp_path), {"kind": "pyproject", "file": "pyproject.toml", "requirements": [name]})
        for name in ("rich", "numpy")
    )
    assert len({lock, one, two, layers.fingerprint(str(tmp_path), None)}) == 4


def test_a_file_that_is_named_and_not_there(tmp_path: Path) -> None:
    write(tmp_path, requirements_txt="-r gone.txt\n")
    with pytest.raises(RunFailed, match=r"requirements.txt cannot be read.*gone.txt"):
        layers.fingerprint(str(tmp_path), REQUIREMENTS)


@pytest.mark.parametrize(
    ("code", "said", "reason", "what"),
    [
        (layer_install.CONFLICT, b"noise\nit asks for torch>=2.9\n", "dependencies", "it asks for torch>=2.9"),
        (layer_install.FAILED, b"noise\npip could not\n", "dependencies", "pip could not"),
        (layer_install.FAILED, b"OSError: [Errno 28] No space left on device\n", "disk", "disk is full"),
        (137, b"", "dependencies", "exit code 137"),
    ],
)
def test_what_the_end_of_an_installer_means(code: int, said: bytes, reason: str, what: str) -> None:
    with pytest.raises(RunFailed) as failed:
        layers.check(Result(code, said, b""), JOB, "change it")
    assert failed.value.reason == reason
    assert what in failed.value.what
    assert failed.value.next_step


def test_an_installer_says_whether_it_did_anything() -> None:
    assert layers.check(Result(layer_install.INSTALLED, b"", b""), JOB, "") is True
    assert layers.check(Result(layer_install.SATISFIED, b"", b""), JOB, "") is False


def test_pip_runs_as_root_beside_the_project() -> None:
    ssh = {"/gpurun/agent.sock": "/tmp/ssh-x/agent.1"}
    assert docker_layers.create("gpurun.layer.1a.1000", "sha256:1a", {}, RUN, ssh, ["--security-opt", "label=disable"]) == [
        "create", "--name", "gpurun.layer.1a.1000", "--interactive", "--init", "--network", "host", "--user", "0:0",
        "--workdir", "/", "--security-opt", "label=disable",
        "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/workspace,target=/gpurun/project,readonly",
        "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/layer.json,target=/gpurun/order.json,readonly",
        "--mount", f"type=bind,source={layers.INSTALLER},target=/gpurun/layer_install.py,readonly",
        "--mount", "type=volume,source=gpurun-pip,target=/gpurun/pip",
        "--mount", "type=bind,source=/tmp/ssh-x/agent.1,target=/gpurun/agent.sock",
        "sha256:1a", "/bin/sh",
    ]  # fmt: skip


def test_an_entrypoint_is_replaced_and_set_back() -> None:
    config = {"Entrypoint": ["/entry.sh", "a b"], "Cmd": ["bash"], "User": "app", "WorkingDir": "/app"}
    assert docker_layers.create("c", "sha256:1a", config, RUN, {})[-3:] == ["--entrypoint", "/bin/sh", "sha256:1a"]
    assert docker_layers.restored(config) == [
        "--change", 'ENTRYPOINT ["/entry.sh", "a b"]', "--change", 'CMD ["bash"]', "--change", "USER app",
        "--change", "WORKDIR /app", "--change", "LABEL gpurun.layer=",
    ]  # fmt: skip


def test_the_ssh_agent_is_taken_along_when_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert docker_layers.ssh_agent({}) == {}
    assert docker_layers.ssh_agent({"SSH_AUTH_SOCK": str(tmp_path / "gone")}) == {}
    (tmp_path / "sock").touch()
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").touch()
    assert docker_layers.ssh_agent({"SSH_AUTH_SOCK": str(tmp_path / "sock")}) == {
        "/gpurun/agent.sock": str(tmp_path / "sock"),
        "/gpurun/known_hosts": str(tmp_path / ".ssh/known_hosts"),
    }
