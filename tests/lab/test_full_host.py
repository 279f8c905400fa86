"""A host whose disk is full: what it has can still be fetched, counts as fetched, and can be removed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpurun.demo.host import EmbeddedHost
from tests.e2e.conftest import REPOSITORY, SCRIPT, Laptop


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of its own, in memory, with the room that a submit asks for."""
    place = Path(tempfile.mkdtemp(prefix="gpurun-disk-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def fill(disk: Path) -> None:
    """Leave no byte free: the file system shrinks to what is used, and the rest is written to."""
    size = shutil.disk_usage(disk).used // 1024 + 64
    subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
    subprocess.run(["sh", "-c", f"cat /dev/zero >{disk}/filler"], capture_output=True, check=False)
    assert shutil.disk_usage(disk).free == 0


@pytest.fixture
def laptop(disk: Path) -> Iterator[Laptop]:
    directory = Path(tempfile.mkdtemp(prefix="gpurun-e2e-", dir="/tmp"))
    host = EmbeddedHost(disk / "host", environment={"GPURUN_LOCKS": str(disk / "locks"), "TMPDIR": str(disk)})
    for name in ("home", "vision", "run"):
        (directory / name).mkdir(mode=0o700)
    (disk / "locks").mkdir(mode=0o700)
    (directory / "vision/train.py").write_text(SCRIPT)
    (directory / "vision/gpurun.toml").touch()
    host.start()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory / "home"),
        "XDG_RUNTIME_DIR": str(directory / "run"),
        "GPURUN_SSH": shlex.join(host.ssh_command),
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": "200",
    }
    yield Laptop(directory / "home", directory / "vision", environment)
    subprocess.run([*host.ssh_command, "-O", "exit", "demo"], capture_output=True, check=False)
    host.close()
    shutil.rmtree(directory, ignore_errors=True)


def test_fetch_from_a_full_host_counts_and_makes_room(laptop: Laptop, disk: Path) -> None:
    run = laptop.submit("train.py", "--", "1", "0")
    laptop.ok("wait", run)
    fill(disk)
    done = laptop.gpurun("fetch", run)
    assert (done.code, "error" in done.err) == (0, False), done.err
    assert (laptop.project / "fetched" / run / "weights.ckpt").stat().st_size == 1000
    done = laptop.gpurun("rm", run)  # nobody is there to be asked
    assert done.code == 0, done.err
    assert not (disk / "host/home/.gpurun/runs" / run).exists()
