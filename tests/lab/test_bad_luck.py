"""Bad input and bad luck as a user meets them: one message, the right exit code, the next step, and nothing lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop, Result
from tests.lab.host.users import ADA
from tests.lab.jobs import SLEEPER, Jobs

HOG = "blocks = []\nwhile True: blocks.append(bytearray(1 << 24))\n"


@pytest.fixture
def submit(laptop: Laptop) -> Callable[..., Result]:
    """Submit `train.py` of a project to `ada`, following it, without a check of the exit code."""

    def do(files: dict[str, str], *arguments: str, alias: str = "ada", gpus: str = "0") -> Result:
        project = laptop.project({"gpurun.toml": "", "train.py": "print('ran')\n", **files})
        words = ["submit", "train.py", "-H", alias, "-g", gpus, "-f", *arguments]
        return laptop.gpurun(*words, cwd=project, check=False, timeout=900)

    return do


def one_message(done: Result) -> str:
    """The message: no traceback, and one `error:` at the most."""
    assert "Traceback" not in done.stderr, done.stderr
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) <= 1, done.stderr
    return done.stderr


def test_script_missing(laptop: Laptop, host: LabHost) -> None:
    project = laptop.project({"gpurun.toml": "", "train.py": ""})
    done = laptop.gpurun("submit", "trian.py", "-H", "ada", cwd=project, check=False)
    assert done.returncode == 2
    assert "trian.py" in one_message(done)
    assert "train.py" in done.stderr  # the nearest


def test_job_file_with_a_misspelt_key(laptop: Laptop, host: LabHost) -> None:
    project = laptop.project(
        {"gpurun.toml": "", "train.py": "", "job.toml": 'script = "train.py"\nmax_duraton = "1h"\n'}
    )
    done = laptop.gpurun("submit", "job.toml", "-H", "ada", cwd=project, check=False)
    assert done.returncode == 2
    assert "max_duraton" in one_message(done)
    assert "max_duration" in done.stderr
    assert "job.toml" in done.stderr


@pytest.mark.parametrize(
    ("hidden", "says"),
    [(("rsync",), "rsync"), (("python3", "python3.11", "python"), "python")],
    ids=["no rsync", "no python"],
)
def test_host_lacks(submit: Callable[..., Result], host: LabHost, hidden: tuple[str, ...], says: str) -> None:
    host.hide(*hidden)
    done = submit({})
    assert done.returncode == 125
    assert says in one_message(done).lower()
    assert "next:" in done.stderr


def test_no_right_to_the_engine(submit: Callable[..., Result], host: LabHost) -> None:
    done = submit({}, alias="carl")
    assert done.returncode == 125
    assert "usermod -aG docker" in one_message(done)
    assert "--runtime bare" in done.stderr


def test_image_that_is_nowhere(submit: Callable[..., Result], host: LabHost) -> None:
    registry = host.registry
    assert registry is not None
    done = submit({}, "--image", f"{registry.address}/nowhere:1")
    assert done.returncode == 125
    assert "nowhere:1" in one_message(done)


def test_dependencies_that_cannot_be_installed(jobs: Jobs, submit: Callable[..., Result]) -> None:
    done = submit({"requirements.txt": "no-such-package-of-gpurun==1.0\n"})
    assert done.returncode == 125
    assert "no-such-package-of-gpurun" in one_message(done)
    run = done.stdout.strip()
    record = jobs.record(run)
    assert (record["state"], record["reason"]) == (words.FAILED, "dependencies")
    assert "no-such-package-of-gpurun" in jobs.ask("logs", run, check=False).stdout


def test_another_torch_than_the_image_has(submit: Callable[..., Result], pinned_image: None, host: LabHost) -> None:
    done = submit({"requirements.txt": "torch==2.3.1\n"})
    assert done.returncode == 125
    assert "requirements.txt requires torch==2.3.1, but the image has torch 2.8.0" in one_message(done)


@pytest.mark.parametrize(
    ("script", "code", "reason", "hint"),
    [
        ("raise SystemExit(3)", 3, "exit", ""),
        ("import os; os.kill(os.getpid(), 9)", 137, "signal", ""),
        (HOG, 137, "oom", "--memory"),
    ],
    ids=["exits 3", "is killed", "runs out of memory"],
)
def test_script(jobs: Jobs, submit: Callable[..., Result], script: str, code: int, reason: str, hint: str) -> None:
    done = submit({"train.py": script}, "--memory", "200MB")
    assert done.returncode == code
    run = done.stdout.strip()
    assert jobs.record(run)["reason"] == reason
    assert jobs.ask("wait", run, check=False).returncode == code
    status = jobs.ask("status", run, "--exit-code", check=False)
    assert status.returncode == code
    assert hint in status.stdout


def test_disk_of_the_host_is_full(jobs: Jobs, submit: Callable[..., Result], host: LabHost) -> None:
    submit({})
    small_disk(host, "8m")
    done = submit({"data.bin": "x" * 20_000_000}, "-y")
    assert done.returncode == 125
    assert "disk" in one_message(done)
    assert "next:" in done.stderr


def test_job_that_fills_the_disk_is_still_stopped_and_its_end_recorded(jobs: Jobs, host: LabHost) -> None:
    """A reserve is given up for it."""
    small_disk(host, "1300m")
    script = (
        "import time\nprint('here', flush=True)\nfile = open('big.bin', 'wb', buffering=0)\n"
        "try:\n    while True: file.write(bytes(1 << 16)); file.flush()\nexcept OSError:\n    file.close()\n"
        "print('full', flush=True)\ntime.sleep(600)\n"
    )
    run = jobs.submit(script)
    jobs.until_running(run)
    while host.run("df", "--output=avail", f"{ADA.home}/.gpurun").split()[-1] != "0":
        time.sleep(0.5)
    assert jobs.record(run)["live"]
    jobs.ask("stop", run, "--force")
    assert jobs.until_ended(run)[0] == words.STOPPED


def test_disk_of_the_laptop_is_full(jobs: Jobs, laptop: Laptop, tmp_path: Path) -> None:
    project = laptop.project({"gpurun.toml": "", "train.py": "open('big.ckpt', 'wb').write(bytes(30 << 20))"})
    run = jobs.ask("submit", "train.py", "-H", "ada", "-g", "0", cwd=project).stdout.strip()
    jobs.until_ended(run)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], check=True)
    try:
        done = laptop.gpurun("fetch", run, "-o", str(tmp_path / "out"), check=False)
        assert done.returncode == 125
        assert "disk" in one_message(done)
        assert not list((tmp_path / "out").rglob("big.ckpt"))
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
    laptop.gpurun("fetch", run, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/big.ckpt").stat().st_size == 30 << 20


def test_submit_returns_while_the_job_sleeps_and_leaves_nothing_on_the_connection(jobs: Jobs, host: LabHost) -> None:
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    jobs.laptop.run("ssh", "-O", "exit", "ada", check=False)
    left = [line for line in host.processes() if "python3 -I -S" in line]
    assert len(left) == len(jobs.supervisors(run)) == 1


def test_max_duration_is_kept_while_the_laptop_is_away(jobs: Jobs) -> None:
    run = jobs.submit(SLEEPER, "--max-duration", "3s")
    assert jobs.until_ended(run)[:2] == (words.TIMED_OUT, "duration")


def small_disk(host: LabHost, size: str) -> None:
    """Give the user's ~/.gpurun a disk of its own."""
    place = f"{ADA.home}/.gpurun"
    host.run("mkdir", "-p", place)
    options = f"size={size},uid={ADA.uid},gid={ADA.uid},mode=700"
    host.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", place, user=None)
