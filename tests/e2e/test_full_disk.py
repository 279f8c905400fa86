"""A laptop whose disks are full, read-only or another's, with real file systems: a small tmpfs in a mount namespace."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Done, Laptop

FULL = "cat /dev/zero >{place}/filler 2>/dev/null || true"
READ_ONLY = "mount -o remount,ro {place}"


class SmallDisk:
    """Runs gpurun where the folder `place` is a disk of its own: it begins as a copy of what is there, and is thrown away."""

    def __init__(self, laptop: Laptop, place: Path, state: str, size: str = "1m") -> None:
        self.laptop, self.place, self.state, self.size = laptop, place, state, size

    def gpurun(self, *args: str, redirect: str = "") -> Done:
        place = shlex.quote(str(self.place))
        steps = [
            f"cp -a {place} {place}.kept",
            f"mount -t tmpfs -o size={self.size},mode=700 none {place}",
            f"cp -a {place}.kept/. {place}",
            f"rm -rf {place}.kept",
            self.state.format(place=place),
            f"exec {shlex.join([sys.executable, '-P', '-m', 'gpurun', *args])} {redirect}",
        ]
        unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        done = subprocess.run(
            [*unshare, "sh", "-ec", "\n".join(steps)],
            cwd=self.laptop.project,
            env=self.laptop.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def ended(laptop: Laptop) -> str:
    """A run that has ended, which the laptop saw last while it ran."""
    run = laptop.submit("train.py", "--", "2", "0")
    laptop.ok("wait", run)
    return run


def in_one_message(done: Done) -> None:
    assert "Traceback" not in done.err, done.err
    assert "has a bug" not in done.err, done.err
    assert done.err.count("error: ") <= 1, done.err


@pytest.mark.parametrize("state", [FULL, READ_ONLY])
def test_questions_are_answered_without_the_store_and_warn_once(laptop: Laptop, ended: str, state: str) -> None:
    running = laptop.submit("train.py", "--", "600", "0")
    disk = SmallDisk(laptop, laptop.home, state)
    for question in (("ps", "-a"), ("status", running), ("logs", running), ("wait", ended), ("path", running)):
        done = disk.gpurun(*question)
        in_one_message(done)
        assert done.code == 0, (question, done.err)
        assert done.err.count("is not kept up to date") <= 1, done.err
    done = disk.gpurun("ps", "-a", "--json")
    assert {one["id"] for one in json.loads(done.out)["runs"]} >= {running, ended}
    assert done.err.count("is not kept up to date") == 1, done.err
    assert str(laptop.home) in done.err


def test_stop_works_on_a_full_disk(laptop: Laptop) -> None:
    running = laptop.submit("train.py", "--", "600", "0")
    done = SmallDisk(laptop, laptop.home, FULL).gpurun("stop", "--force", running)
    in_one_message(done)
    assert done.code == 0, done.err
    assert laptop.state(running) == "stopped"


@pytest.mark.parametrize(("state", "what"), [(FULL, "a disk of this machine is full"), (READ_ONLY, "is read-only")])
def test_submit_is_one_message_with_path_and_next_step(laptop: Laptop, ended: str, state: str, what: str) -> None:
    before = [one["id"] for one in laptop.json("ps", "-a")["runs"]]
    done = SmallDisk(laptop, laptop.home, state).gpurun(
        "submit", "-H", "demo", "--runtime", "bare", "train.py", "--", "2", "0"
    )
    in_one_message(done)
    assert done.code == 125, done.err
    assert what in done.err
    assert f"{laptop.home}/.local/share/gpurun" in done.err.replace("\n", "").replace("  ", "")
    assert "next: " in done.err
    assert [one["id"] for one in laptop.json("ps", "-a")["runs"]] == before, "nothing began"


def test_fetch_into_a_full_disk_is_told_with_the_folder(laptop: Laptop, ended: str) -> None:
    disk = SmallDisk(laptop, laptop.project, FULL)
    done = disk.gpurun("fetch", ended)
    in_one_message(done)
    assert done.code == 125, done.err
    assert "disk of this machine is full" in done.err
    assert str(laptop.project) in done.err
    laptop.ok("fetch", ended)


def test_output_into_a_file_on_a_full_disk_is_told(laptop: Laptop, ended: str) -> None:
    disk = SmallDisk(laptop, laptop.project, FULL)
    done = disk.gpurun("logs", ended, redirect=f">{laptop.project}/log")
    in_one_message(done)
    assert done.code == 125, done.err
    assert "a disk of this machine is full" in done.err
    assert "Exception ignored" not in done.err


def test_questions_go_on_when_no_folder_for_temporary_files_has_room(laptop: Laptop, ended: str) -> None:
    laptop.environment["TMPDIR"] = str(laptop.home / "tmp")
    (laptop.home / "tmp").mkdir()
    done = SmallDisk(laptop, laptop.home, FULL).gpurun("status", ended)
    in_one_message(done)
    assert done.code == 0, done.err
