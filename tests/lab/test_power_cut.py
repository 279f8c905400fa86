"""A power cut behind a submit: what is on the disk then is what the job runs with.

The host's home lies on an ext4 of its own on a loop device. The device is copied as it is at a moment, without a word to the
file system, which is what a power cut leaves; the copy is mounted (its journal is replayed), and the agent goes on.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.state import journal
from tests.support.agent_host import AgentHost, make_job

CODE = {"train.py": "open('model.ckpt', 'w').write('x')\nprint('trained')\n", "model.py": "x = 1\n" * 5000}


class Disk:
    """An ext4 in a file, mounted at `at`."""

    def __init__(self, folder: Path) -> None:
        self.image, self.at = folder / "disk.img", folder / "disk"
        self.at.mkdir()
        with self.image.open("wb") as file:
            file.truncate(3 << 30)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.at], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.at], check=False)

    def cut(self) -> Path:
        """A copy as the disk would be found after a power cut now."""
        copy = self.image.with_name("cut.img")
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        return copy

    def come_up_with(self, copy: Path) -> None:
        self.unmount()
        self.image = copy
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.unmount()


@pytest.fixture
def agent(tmp_path: Path, disk: Disk) -> Iterator[AgentHost]:
    (tmp_path / "host").mkdir()
    made = AgentHost(tmp_path / "host", sys.executable)
    shutil.rmtree(made.home)
    made.home = disk.at / "home"
    made.home.mkdir()
    made.paths = HostPaths(str(made.home / ".gpurun"))
    yield made
    made.end_all()


def arrive(run: RunPaths) -> None:
    """What rsync does: write beside, rename. It flushes nothing."""
    for name, text in CODE.items():
        beside = Path(run.snapshot, f".{name}.Ab12Cd")
        beside.write_text(text)
        beside.rename(Path(run.snapshot, name))


def until(condition: object, run: RunPaths) -> None:
    end = time.monotonic() + 30
    while not os.path.exists(str(condition)):
        assert time.monotonic() < end, Path(run.supervisor_log).read_text()
        time.sleep(0.05)


def test_start_power_cut_behind_it_runs_the_code_that_was_sent(agent: AgentHost, disk: Disk) -> None:
    subprocess.run(["sync"], check=True)
    job = make_job(f"train-{secrets.token_hex(2)}", command=["python", "train.py"])
    agent.ask("prepare", job=job, total_bytes=1)
    run = agent.paths.run(job["id"])
    arrive(run)
    python = agent.root / "bin" / "python3"
    python.unlink()
    python.write_text("#!/bin/sh\nsleep 1000\n")  # holds the supervisor behind the making of the workspace
    python.chmod(0o755)
    agent.start(run)
    until(Path(run.workspace, "train.py"), run)
    journal.record(run, "note", message="flushed, as any event")
    copy = disk.cut()

    agent.end_all()
    disk.come_up_with(copy)
    agent.boot_id.write_text(secrets.token_hex(16))
    assert journal.read(run)[-1]["event"] == "note"
    for place in (run.snapshot, run.workspace):
        assert {name: Path(place, name).read_text() for name in CODE} == CODE
    python.unlink()
    python.symlink_to(sys.executable)
    record = agent.wait(run, 60)
    assert (record["state"], Path(run.log).read_text()) == (words.SUCCEEDED, "trained\n")
    assert Path(run.workspace, "model.ckpt").exists()
