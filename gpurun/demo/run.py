"""Run the steps of `gpurun demo`: submit, follow, fetch and measure, each as a user types it."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.errors import GpurunError, UsageError
from gpurun.job.templates import PACKAGE, write_project

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

NEEDED_PACKAGES = ("asyncssh", "lightning", "sklearn", "tensorboard", "torch")
NEEDED_PROGRAMS = ("ssh", "rsync")
MIN_ACCURACY = 0.97
# The variables that would make the demo's commands use the user's own gpurun files.
PERSONAL = ("GPURUN_", "XDG_")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Laptop:
    """A new user: a home, a project, and the only host that `ssh` knows."""

    project: Path
    environment: dict[str, str]
    say: Say

    def gpurun(self, *arguments: str) -> None:
        """Run a command of gpurun, shown as a user types it. Raises GpurunError when it fails."""
        self.say(f"\n$ {shlex.join(('gpurun', *arguments))}")
        # -P: the project's own `data` and `models` must not be importable by gpurun.
        command = [sys.executable, "-P", "-m", "gpurun", *arguments]
        code = subprocess.run(command, cwd=self.project, env=self.environment, check=False).returncode
        if code:
            raise GpurunError(f"`{shlex.join(('gpurun', *arguments))}` ended with exit code {code}")


def run_demo(say: Say) -> float:
    """Train on an SSH host inside this process and measure the fetched checkpoint.

    Return its validation accuracy, in [0, 1]. Raises UsageError when a required program or package is missing, and
    GpurunError when a step fails or the accuracy is below `MIN_ACCURACY`; the files are kept then.
    """
    check_needs()
    from gpurun.demo.host import EmbeddedHost

    started = time.monotonic()
    # Directly below /tmp, because it will contain sockets, whose paths are limited to about 104 bytes.
    directory = Path(tempfile.mkdtemp(prefix="gpurun-demo-", dir="/tmp"))
    try:
        with EmbeddedHost(directory / "host") as host:
            say(f"The demo's SSH host listens on 127.0.0.1:{host.port}; its home is {host.home}.")
            accuracy = train_and_measure(new_laptop(directory, host, say))
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        say("\nThe demo's host, its files and its jobs are removed.")
        raise
    except Exception:
        say(f"\nThe demo failed. All its files are kept in {directory}")
        raise
    shutil.rmtree(directory)
    say(f"The demo took {time.monotonic() - started:.0f} s. All of its files are removed.")
    return accuracy


def check_needs() -> None:
    """Raise UsageError when a required program or package is missing."""
    if missing := [name for name in NEEDED_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"gpurun demo needs {', '.join(missing)}", "pip install '.[demo]'")
    if missing := [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]:
        raise UsageError(f"gpurun demo needs {' and '.join(missing)}", "apt install openssh-client rsync")


def new_laptop(directory: Path, host: EmbeddedHost, say: Say) -> Laptop:
    """Create a home and a copy of the example below `directory`."""
    home, runtime, project = directory / "laptop", directory / "run", directory / "laptop" / "digits"
    home.mkdir()
    runtime.mkdir(mode=0o700)
    write_project(project, "digits")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PERSONAL)}
    environment |= {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "GPURUN_SSH": shlex.join(host.ssh_command),
        # By default below HOME, where gpurun and its dependencies may be installed.
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])),
    }
    return Laptop(project, environment, say)


def train_and_measure(laptop: Laptop) -> float:
    """Run the demo's commands and return the validation accuracy, in [0, 1]."""
    # One thread is enough for images of 8x8 pixels; on a busy machine, more threads only wait for each other.
    where = ("-H", "demo", "-g", "0", "--runtime", "bare", "-e", "OMP_NUM_THREADS=1")
    laptop.gpurun("submit", "train.py", *where, "-f")
    laptop.gpurun("ps", "-a")
    laptop.gpurun("fetch")
    best = fetched_checkpoint(laptop.project)
    accuracy = measure(laptop, best)
    laptop.gpurun("rm", best.parts[1], "-y")
    if accuracy < MIN_ACCURACY:
        raise GpurunError(f"the validation accuracy is {accuracy:.2%}, less than {MIN_ACCURACY:.0%}")
    laptop.say(f"\nThe fetched checkpoint classifies {accuracy:.2%} of the validation images correctly.")
    return accuracy


def fetched_checkpoint(project: Path) -> Path:
    """Return the best fetched checkpoint, as fetched/<run-id>/checkpoints/best.ckpt."""
    paths = [path.relative_to(project) for path in project.glob("fetched/*/checkpoints/best.ckpt")]
    if len(paths) != 1:
        raise GpurunError(f"the demo expected one fetched checkpoint and found {len(paths)}", where=project)
    return paths[0]


def measure(laptop: Laptop, checkpoint: Path) -> float:
    """Load the checkpoint with the example's predict.py and return the validation accuracy, in [0, 1]."""
    laptop.say(f"\n$ python predict.py {checkpoint} --json")
    completed = subprocess.run(
        [sys.executable, "predict.py", str(checkpoint), "--json"],
        cwd=laptop.project,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if completed.returncode:
        raise GpurunError(f"predict.py ended with exit code {completed.returncode}")
    laptop.say(completed.stdout.rstrip())
    return float(json.loads(completed.stdout)["val_acc"])
