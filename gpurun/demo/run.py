"""The steps of `gpurun demo`: submit, follow, fetch and measure, each as a user would type it."""

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
LEAST_ACCURACY = 0.97
# Of our environment, what would lead the demo's commands to the user's own gpurun.
PERSONAL = ("GPURUN_", "XDG_")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Laptop:
    """A user who has nothing yet: a home, a project, and the one host that `ssh` knows."""

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
    """Train on an SSH host inside this process and measure what came back.

    Returns the validation accuracy of the fetched checkpoint, in [0, 1]. Raises UsageError when something is
    not installed that it needs, and GpurunError when a step fails or the accuracy is below `LEAST_ACCURACY`;
    its files are kept then.
    """
    check_needs()
    from gpurun.demo.host import EmbeddedHost

    started = time.monotonic()
    # Below /tmp itself, because sockets come under it and their paths are limited to about 104 bytes.
    directory = Path(tempfile.mkdtemp(prefix="gpurun-demo-", dir="/tmp"))
    try:
        with EmbeddedHost(directory / "host") as host:
            say(f"An SSH host of the demo's own listens on 127.0.0.1:{host.port}; its home is {host.home}.")
            accuracy = train_and_measure(new_laptop(directory, host, say))
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        say("\nThe demo's host is gone, and its files and jobs with it.")
        raise
    except Exception:
        say(f"\nThe demo failed. All its files are kept in {directory}")
        raise
    shutil.rmtree(directory)
    say(f"It took {time.monotonic() - started:.0f} s, and nothing of it is left on this machine.")
    return accuracy


def check_needs() -> None:
    """Raise UsageError unless everything that the demo runs on is there."""
    if missing := [name for name in NEEDED_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"gpurun demo needs {', '.join(missing)}", "pip install '.[demo]'")
    if missing := [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]:
        raise UsageError(f"gpurun demo needs {' and '.join(missing)}", "apt install openssh-client rsync")


def new_laptop(directory: Path, host: EmbeddedHost, say: Say) -> Laptop:
    """Make a home and a copy of the example under `directory`."""
    home, runtime, project = directory / "laptop", directory / "run", directory / "laptop" / "digits"
    home.mkdir()
    runtime.mkdir(mode=0o700)
    write_project(project, "digits")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PERSONAL)}
    environment |= {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "GPURUN_SSH": shlex.join(host.ssh_command),
        # Found below HOME unless told: gpurun may be installed there, and so may what it imports.
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])),
    }
    return Laptop(project, environment, say)


def train_and_measure(laptop: Laptop) -> float:
    """The demo itself. Returns the validation accuracy, in [0, 1]."""
    # Images of 8x8 pixels keep one thread busy; on a machine with other work, more wait for each other.
    where = ("-H", "demo", "-g", "0", "--runtime", "bare", "-e", "OMP_NUM_THREADS=1")
    laptop.gpurun("submit", "train.py", *where, "-f")
    laptop.gpurun("ps", "-a")
    laptop.gpurun("fetch")
    best = fetched_checkpoint(laptop.project)
    accuracy = measured(laptop, best)
    laptop.gpurun("rm", best.parts[1], "-y")
    if accuracy < LEAST_ACCURACY:
        raise GpurunError(f"the validation accuracy is {accuracy:.2%}, and {LEAST_ACCURACY:.0%} was expected")
    laptop.say(f"\nThe fetched checkpoint is right on {accuracy:.2%} of the validation images.")
    return accuracy


def fetched_checkpoint(project: Path) -> Path:
    """The best checkpoint that came back, as fetched/<run-id>/checkpoints/best.ckpt."""
    found = [path.relative_to(project) for path in project.glob("fetched/*/checkpoints/best.ckpt")]
    if len(found) != 1:
        raise GpurunError(f"one fetched checkpoint was expected, and {len(found)} are there", where=project)
    return found[0]


def measured(laptop: Laptop, checkpoint: Path) -> float:
    """Load the checkpoint by the example's own predict.py; the validation accuracy, in [0, 1]."""
    laptop.say(f"\n$ python predict.py {checkpoint} --json")
    done = subprocess.run(
        [sys.executable, "predict.py", str(checkpoint), "--json"],
        cwd=laptop.project,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise GpurunError(f"predict.py ended with exit code {done.returncode}")
    laptop.say(done.stdout.rstrip())
    return float(json.loads(done.stdout)["val_acc"])
