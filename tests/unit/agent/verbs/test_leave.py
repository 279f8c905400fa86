"""`leave`, asked of a real agent: what is gpurun's goes, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpurun.agent import uninstall
from gpurun.agent.errors import AgentError
from gpurun.agent.paths import HostPaths
from gpurun.agent.verbs import leave
from tests.support.run_folder import RunFolder


def test_leaving_keeps_data_that_came_while_it_removed_the_rest(tmp_path: Path) -> None:
    host = HostPaths(str(tmp_path / ".gpurun"))
    data = Path(host.data("imagenet"))
    data.mkdir(parents=True)
    (data / "1.jpg").write_text("a cat")
    agreed = {"imagenet": uninstall.data_folders(host)["imagenet"]["stamp"]}
    (data / "2.jpg").write_text("a dog")
    uninstall.remove_data(host, agreed, outcome := uninstall.Outcome())
    assert outcome.kept == [{"path": str(data), "why": uninstall.CHANGED}]
    assert sorted(path.name for path in data.iterdir()) == ["1.jpg", "2.jpg"]


def test_stamp_of_data_with_a_file_of_the_future_changes_with_each_other_file(tmp_path: Path) -> None:
    """A laptop whose clock was ahead has pushed it, with its time."""
    (tmp_path / "1.jpg").write_text("a cat")
    (tmp_path / "2.jpg").write_text("a cow")
    os.utime(tmp_path / "2.jpg", (4e9, 4e9))
    before = uninstall.measure(str(tmp_path))
    assert uninstall.measure(str(tmp_path)) == before
    (tmp_path / "1.jpg").write_text("a dog")
    assert uninstall.measure(str(tmp_path))["stamp"] != before["stamp"]


# --- the agent that removes itself


# --- roots with other things in them


def test_every_name_that_gpurun_gives_in_the_cache_is_recognised() -> None:
    host = HostPaths("/root")
    found = []
    for name, member in vars(HostPaths).items():
        if isinstance(member, property):
            found.append(getattr(host, name))
        elif name in ("environment", "layer", "about", "warm", "warm_log", "push_note"):
            found.append(member(host, "x"))
    inside = {path.split("/")[3] for path in found if str(path).startswith("/root/cache/")}
    assert inside | {"snapshots"} == set(uninstall.CACHE)


def test_leaving_removes_no_run_that_came_while_it_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    host = HostPaths(str(tmp_path / ".gpurun"))
    (Path(host.runs) / ".gone-train-9k2m").mkdir(parents=True)
    run = RunFolder(tmp_path / ".gpurun")
    with pytest.raises(AgentError) as error:
        leave._empty(host, {}, uninstall.Outcome())
    assert error.value.code == "more_runs"
    assert run.root.is_dir()


def test_one_key_is_revoked_and_the_others_stay(tmp_path: Path) -> None:
    keys = tmp_path / "authorized_keys"
    lines = [
        "# a comment\n",
        'from="10.0.0.0/8" ssh-ed25519 AAA gpurun:ada.laptop:box2\n',
        "ssh-ed25519 BBB gpurun:ada.laptop:box\n",
        "ssh-ed25519 CCC ada@laptop",
    ]
    keys.write_text("".join(lines))
    keys.chmod(0o600)
    assert leave.revoke(str(keys), "gpurun:ada.laptop:box") == 1
    assert keys.read_text() == "".join([lines[0], lines[1], lines[3]])
    assert keys.stat().st_mode & 0o777 == 0o600
    assert leave.revoke(str(keys), "gpurun:ada.laptop:box") == 0
    assert leave.revoke(str(tmp_path / "none"), "x") == 0
