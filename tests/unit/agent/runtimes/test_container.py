"""What the engine is told, word by word, and how its answers are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.host.gpus import Gpu
from gpurun.agent.host.identity import Identity, Login, identity
from gpurun.agent.paths import HostPaths
from gpurun.agent.runtimes import Presence, docker
from gpurun.agent.runtimes import container as argv
from gpurun.agent.runtimes.container import Container
from gpurun.agent.setup import wrapper
from gpurun.agent.setup.mounts import bind
from tests.support.part import only

RUN = HostPaths("/home/ada/.gpurun").run("train-7f3k")
ADA = identity(Login(1000, 1000, (27, 1000), "ada"), only())
GPUS = [Gpu(0, "GPU-a", "A100", 0, 0), Gpu(1, "GPU-b", "A100", 0, 0)]
GIB = 1 << 30
MOUNTS = [
    "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/workspace,target=/workspace",
    "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/out,target=/gpurun/out",
    "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/ro,target=/gpurun/ro,readonly",
    "--mount", "type=bind,source=/home/ada/.gpurun/secrets/train-7f3k,target=/gpurun/secrets,readonly",
    "--mount", "type=bind,source=/home/ada/.gpurun/cache/jobs,target=/gpurun/cache",
    "--mount", "type=bind,source=/home/ada/.gpurun/data/vision,target=/gpurun/data",
]  # fmt: skip
PASSWD = [
    "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/ro/passwd,target=/etc/passwd,readonly",
    "--mount", "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/ro/group,target=/etc/group,readonly",
]  # fmt: skip
START = ["/gpurun/ro/wrapper", "/gpurun/out/log", "python", "train.py", "--lr", "1e-3"]
USER = ["--user", "1000:1000", "--group-add", "27"]
CONFINED = ["--init", "--restart=no", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
LIMITED = ["--pids-limit", "32768", "--ulimit", "stack=67108864", "--ulimit", "memlock=-1"]


def container(who: Identity = ADA, **changes: Any) -> Container:
    job: Any = {
        "attempt": 1,
        "id": "train-7f3k", "token": "t0", "name": "train", "owner": "ada", "project": {"name": "vision"},
        "command": ["python", "train.py", "--lr", "1e-3"], "mounts": [], "keep_caps": [], "user": None,
        "resources": {"gpus": 2, "memory": None, "cpus": None, "shm": None, **changes.pop("resources", {})},
    }  # fmt: skip
    return Container("sha256:1a2b", who, 64 * GIB, RUN, only(**{**job, **changes.pop("job", {})}), **changes)


def test_a_job_with_gpus_and_limits() -> None:
    limits = {"memory": 32 * GIB, "cpus": 7.5}
    devices = ["/dev/nvidiactl", "/dev/nvidia3"]
    assert argv.create(container(resources=limits, gpus=GPUS, devices=devices)) == [
        "create", "--name", "gpurun-train-7f3k",
        "--label", "gpurun.run=train-7f3k", "--label", "gpurun.gpus=GPU-a,GPU-b", "--label", "gpurun.owner=ada", "--label", "gpurun.token=512f26ada3c3d634", "--label", "gpurun.attempt=1",
        *CONFINED, *USER, *LIMITED,
        "--shm-size", str(16 * GIB), "--memory", str(32 * GIB), "--memory-swap", str(32 * GIB), "--cpus", "7.5",
        "--gpus", '"device=GPU-a,GPU-b"', "--device", "/dev/nvidiactl", "--device", "/dev/nvidia3",
        *MOUNTS, *PASSWD, "--entrypoint", "/bin/sh", "sha256:1a2b", *START,
    ]  # fmt: skip


def test_a_job_without_gpus_and_limits() -> None:
    assert argv.create(container()) == [
        "create", "--name", "gpurun-train-7f3k",
        "--label", "gpurun.run=train-7f3k", "--label", "gpurun.gpus=", "--label", "gpurun.owner=ada", "--label", "gpurun.token=512f26ada3c3d634", "--label", "gpurun.attempt=1",
        *CONFINED, *USER, *LIMITED, "--shm-size", str(32 * GIB), "--env", "NVIDIA_VISIBLE_DEVICES=void",
        *MOUNTS, *PASSWD, "--entrypoint", "/bin/sh", "sha256:1a2b", *START,
    ]  # fmt: skip


def test_a_rootless_engine_raises_no_limits_and_needs_no_passwd() -> None:
    rootless = identity(Login(1000, 1000, (27, 1000), "ada"), only(rootless=True))
    assert argv.confinement(container(rootless)) == [
        *CONFINED, "--user", "0:0", "--pids-limit", "32768", "--ulimit", "stack=67108864",
        "--shm-size", str(32 * GIB),
    ]  # fmt: skip
    assert argv.mounts(container(rootless)) == MOUNTS


def test_restrictions_that_are_given_up() -> None:
    given_up = {"keep_caps": ["SYS_PTRACE", "no-new-privileges"]}
    assert argv.confinement(container(job=given_up, resources={"shm": GIB})) == [
        "--init", "--restart=no", "--cap-drop", "ALL", "--cap-add", "SYS_PTRACE", *USER, *LIMITED,
        "--shm-size", str(GIB),
    ]  # fmt: skip


def test_a_shell_beside_the_job_and_one_after_it() -> None:
    assert argv.shell_beside("c0ffee", ["ls", "-l"], tty=False) == [
        "exec", "--interactive", "c0ffee", "/bin/sh", "/gpurun/ro/wrapper", "-", "ls", "-l",
    ]  # fmt: skip
    fresh = argv.fresh_shell(container(gpus=GPUS), [], tty=True)
    assert fresh[:4] == ["run", "--rm", "--interactive", "--tty"]
    assert "--gpus" not in fresh
    assert "--name" not in fresh
    assert fresh[fresh.index("GPURUN_SHELL=1") - 1] == "--env"  # no process of the job
    assert "gpurun.shell=train-7f3k" in fresh
    assert not any(word.startswith("gpurun.run=") for word in fresh)
    assert fresh[-8:-2] == ["--entrypoint", "/bin/sh", "sha256:1a2b", "/gpurun/ro/wrapper", "-", "/bin/sh"]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("/data/a b", "type=bind,source=/data/a b,target=/x"),
        ("/data/a,b", 'type=bind,"source=/data/a,b",target=/x'),
        ('/data/"a"', 'type=bind,"source=/data/""a""",target=/x'),
        ("/data/a\nb", 'type=bind,"source=/data/a\nb",target=/x'),
    ],
)
def test_a_mount_is_one_line_of_csv(source: str, value: str) -> None:
    assert bind(source, "/x") == value


NEVER = "0001-01-01T00:00:00Z"
TIMES: Any = {"StartedAt": "2026-01-31T12:00:00.5Z", "FinishedAt": "2026-01-31T13:00:00.25+01:00"}


@pytest.mark.parametrize(
    ("state", "presence"),
    [
        ({"Status": "created", "StartedAt": NEVER, "FinishedAt": NEVER}, Presence("created")),
        ({"Status": "running", **TIMES}, Presence("running", started_at=1769860800.5)),
        ({"Status": "paused", **TIMES}, Presence("running", started_at=1769860800.5)),
        ({"Status": "removing", **TIMES}, Presence("no_answer")),
        (
            {"Status": "exited", "ExitCode": 137, "OOMKilled": True, **TIMES},
            Presence("exited", 137, True, 1769860800.5, 1769860800.25),
        ),
        (
            {"Status": "exited", "ExitCode": 1, "OOMKilled": True, **TIMES},
            Presence("exited", 1, False, 1769860800.5, 1769860800.25),
        ),
        (
            {"Status": "restarting", "ExitCode": 3, "OOMKilled": False, **TIMES},
            Presence("exited", 3, False, 1769860800.5, 1769860800.25),
        ),
        (
            {"Status": "dead", "ExitCode": 255, "OOMKilled": False, **TIMES},
            Presence("exited", 255, False, 1769860800.5, 1769860800.25),
        ),
    ],
)
def test_what_the_engine_says_of_a_container(state: dict[str, Any], presence: Presence) -> None:
    assert docker.parse_state(state) == presence


def test_device_files_are_found_by_uuid(tmp_path: Path) -> None:
    """The driver's minor numbers run against the indexes here; GPU-a's file is nvidia1."""
    dev, proc = tmp_path / "dev", tmp_path / "proc"
    dev.mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"):
        (dev / name).touch()
    for slot, uuid, minor in (("0000:3b:00.0", "GPU-a", 1), ("0000:86:00.0", "GPU-b", 0)):
        (proc / slot).mkdir(parents=True)
        (proc / slot / "information").write_text(f"Model: \t\t A100\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n")
    found = argv.device_files(GPUS[:1], str(dev), str(proc))
    assert [Path(path).name for path in found] == ["nvidiactl", "nvidia-uvm", "nvidia1"]
    assert argv.device_files([], str(dev), str(proc)) == []
    assert argv.device_files(GPUS, str(dev), str(tmp_path)) == [str(dev / "nvidiactl"), str(dev / "nvidia-uvm")]


def test_a_container_without_our_label_is_not_ours() -> None:
    job: Any = {"id": RUN.id, "token": "t0"}
    ours = {"gpurun.run": RUN.id, "gpurun.token": wrapper.token_label(job)}
    assert docker.is_ours({"Config": {"Labels": ours}}, job)
    for labels in (
        None,
        {},
        {"gpurun.run": RUN.id},
        {**ours, "gpurun.run": "other-1111"},
        {**ours, "gpurun.token": "0"},
    ):
        assert not docker.is_ours({"Config": {"Labels": labels}}, job)


def test_a_container_is_of_one_attempt() -> None:
    assert docker.attempt_of({"Config": {"Labels": {"gpurun.attempt": "2"}}}) == 2
    assert docker.attempt_of({"Config": {"Labels": None}}) == 1  # made before there were attempts


def test_tensorboard_is_shown_its_board_and_no_other_run() -> None:
    job: Any = {"service": {"kind": "tensorboard"}, "command": []}
    mounts = [word for word in argv.mounts(container(job=job)) if word.startswith("type=")]
    board = "type=bind,source=/home/ada/.gpurun/runs/train-7f3k/board,target=/gpurun/board,readonly"
    assert board in mounts
    assert [word for word in mounts if "source=/home/ada/.gpurun/runs," in word] == []
    # What belongs to all jobs of the host or the project is none of its business: caches (with ~), data.
    targets = {field[len("target=") :] for word in mounts for field in word.split(",") if field.startswith("target=")}
    assert targets == {
        "/workspace", "/gpurun/out", "/gpurun/ro", "/gpurun/secrets", "/gpurun/board", "/etc/passwd", "/etc/group",
    }  # fmt: skip
