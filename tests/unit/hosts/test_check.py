"""What the doctor makes of what the agent found."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.agent.host.engine import EngineError
from gpurun.hosts import add, findings
from gpurun.hosts.findings import FAIL, GB, OK, WARN

GPU: Any = {"index": 0, "uuid": "GPU-1", "name": "NVIDIA H100", "memory": 80 * GB}
ENGINE: Any = {
    "argv": ["docker"],
    "version": "27.1",
    "rootless": False,
    "userns": False,
    "selinux": False,
    "toolkit": True,
    "root": "/var/lib/docker",
}


def answer(**changes: Any) -> Any:
    facts: Any = {
        "python": {"path": "/usr/bin/python3", "version": "3.11.2"},
        "user": "ada",
        "root": "/home/ada/.gpurun",
        "container": False,
        "gpus": [GPU, {**GPU, "index": 1, "uuid": "GPU-2"}],
        "gpus_error": None,
        "driver": "570.86",
        "engine": ENGINE,
        "engine_error": None,
        "disk": {"free": 500 * GB, "total": 1000 * GB, "inodes_free": 10**7, "inodes": 2 * 10**7},
        "clock": 1000.0,
    }
    found: Any = {
        "rsync": "3.4.1",
        "toolkit": "1.17.8",
        "pythons": [{"path": "/usr/bin/python3", "version": "3.11.2", "torch": None}],
        "engine_free": 100 * GB,
        "disks": [],
        "home": {"type": "ext4", "machines": 1},
        "ends_at_logout": False,
    }
    facts.update({key: value for key, value in changes.items() if key in facts})
    found.update({key: value for key, value in changes.items() if key in found})
    return {"facts": facts, **found}


def look(
    noise: bytes = b"", asked: tuple[float, float] = (999.0, 1001.0), **changes: Any
) -> dict[str, findings.Finding]:
    return {each.topic: each for each in findings.examine("box", answer(**changes), noise=noise, asked=asked)}


def test_all_is_well() -> None:
    found = look()
    assert {each.status for each in found.values()} == {OK}
    assert found["GPUs"].found == "2x NVIDIA H100, driver 570.86"
    assert found["engine"].found == "docker 27.1"


ERROR: Any = {"code": "engine_down", "what": "the engine is not running", "next": "sudo systemctl start docker"}


@pytest.mark.parametrize(
    ("topic", "status", "changes"),
    [
        ("start-up files", FAIL, {"noise": b"Welcome\n"}),
        ("images", FAIL, {"driver": "470.256.02"}),
        ("image disk", WARN, {"engine_free": 14 * GB}),
        ("rsync there", FAIL, {"rsync": None}),
        ("rsync there", FAIL, {"rsync": "3.0.9"}),
        ("engine", FAIL, {"engine": None, "engine_error": ERROR}),
        ("engine", WARN, {"engine": None}),
        ("GPUs", WARN, {"gpus": []}),
        ("GPUs", FAIL, {"gpus": [], "gpus_error": {"what": "nvidia-smi hangs", "next": "reboot"}}),
        ("container toolkit", FAIL, {"engine": {**ENGINE, "toolkit": False}}),
        ("container toolkit", WARN, {"toolkit": "1.16.0"}),
        ("torch", WARN, {"engine": None}),
        ("disk", FAIL, {"disk": {"free": GB, "total": 9 * GB, "inodes_free": 10**7, "inodes": 10**8}}),
        ("disk", WARN, {"disk": {"free": 20 * GB, "total": 99 * GB, "inodes_free": 10**7, "inodes": 10**8}}),
        ("inodes", FAIL, {"disk": {"free": 500 * GB, "total": 999 * GB, "inodes_free": 100, "inodes": 10**8}}),
        ("shared home", WARN, {"home": {"type": "nfs4", "machines": 1}}),
        ("after logout", FAIL, {"ends_at_logout": True}),
        ("clock", WARN, {"asked": (2000.0, 2001.0)}),
    ],
)
def test_what_is_wrong_comes_with_its_mending(topic: str, status: str, changes: Any) -> None:
    found = look(**changes)[topic]
    assert found.status == status
    if (topic, status) != ("engine", WARN):  # which is how many rented boxes are
        assert found.mend


def test_engine_that_cannot_be_used_names_the_way_without_one() -> None:
    assert 'runtime = "bare"' in look(engine=None)["engine"].found
    mend = look(engine=None, engine_error=ERROR)["engine"].mend
    assert mend.splitlines() == [
        "sudo systemctl start docker",
        '--runtime bare, or runtime = "bare" in gpurun.toml, runs jobs without one',
    ]


def test_an_old_rsync_is_no_failure() -> None:
    assert (look(rsync="3.2.7")["rsync there"].status, look(rsync="3.2.7")["rsync there"].mend != "") == (OK, True)


def test_a_file_system_that_counts_no_inodes() -> None:
    disk = {"free": 500 * GB, "total": 999 * GB, "inodes_free": 0, "inodes": 0}
    assert look(disk=disk)["inodes"].status == OK


def test_the_clock_gets_the_benefit_of_a_slow_answer() -> None:
    assert look(asked=(960.0, 1001.0))["clock"].status == OK
    assert "ahead" in look(asked=(900.0, 901.0))["clock"].found
    assert "behind" in look(asked=(1900.0, 1901.0))["clock"].found


@pytest.mark.parametrize(
    ("home_free", "disk_free", "proposed"),
    [(20, 900, True), (20, 60, False), (500, 900, False), (500, 1200, True)],
)
def test_a_far_roomier_disk_is_proposed(home_free: int, disk_free: int, proposed: bool) -> None:
    found = answer(
        disk={"free": home_free * GB, "total": 1, "inodes_free": 1, "inodes": 1},
        disks=[{"path": "/data/ada/.gpurun", "free": disk_free * GB}],
    )
    assert add.roomier_root(found) == (("/data/ada/.gpurun", disk_free * GB) if proposed else None)


def test_no_mending_of_a_gpu_check_leads_back_to_the_check() -> None:
    doctor = look(engine={**ENGINE, "toolkit": False})["container toolkit"].mend
    assert "nvidia-ctk runtime configure" in doctor
    assert EngineError("gpu", "").next_step == doctor
