"""Which disks last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpurun.agent.host import disks, facts

MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /dev/shm rw - tmpfs tmpfs rw
25 22 8:17 / {big} rw,noatime shared:2 - xfs /dev/sdb1 rw
26 22 8:18 / {readonly} ro,noatime shared:3 - ext4 /dev/sdc1 rw
27 22 0:99 / {network} rw - nfs4 server:/home rw
28 22 8:17 /sub /etc/hosts rw - ext4 /dev/sda1 rw
broken line
"""


@pytest.fixture
def mounts(tmp_path: Path) -> str:
    for name in ("big disk", "readonly", "network"):
        (tmp_path / name).mkdir()
    big = str(tmp_path / "big disk").replace(" ", "\\040")
    return MOUNTS.format(big=big, readonly=tmp_path / "readonly", network=tmp_path / "network")


def test_only_writable_disks_of_this_machine_count(
    mounts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(str(tmp_path)))
    found = disks.lasting(mounts, "ada")
    assert [(disk["path"], disk["type"]) for disk in found] == [(str(tmp_path / "big disk/.gpurun"), "xfs")]
    assert found[0]["free"] > 0


def test_a_folder_of_the_users_own_is_taken(mounts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big disk/users/ada").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).endswith("users/ada"))
    assert f"{tmp_path}/big disk/users/ada/.gpurun" in [disk["path"] for disk in disks.lasting(mounts, "ada")]


def test_the_file_system_of_a_path(mounts: str, tmp_path: Path) -> None:
    assert disks.type_of(mounts, str(tmp_path / "network/home")) == "nfs4"
    assert disks.type_of(mounts, str(tmp_path / "big disk")) == "xfs"
    assert disks.type_of(mounts, "/somewhere") == "ext4"
    assert disks.type_of("", "/somewhere") == ""


def test_room_is_told_of_what_is_not_there_yet(tmp_path: Path) -> None:
    assert facts.disk(str(tmp_path / "not/yet"))["total"] == facts.disk(str(tmp_path))["total"]
