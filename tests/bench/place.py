"""Where it is measured: the lab's host with an engine, near, and through a proxy at 100 ms round trip."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.lab import Lab
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import ADA
from tests.support.faultproxy import FaultProxy

DELAY = 0.05  # seconds, each way
FILES = 2000
WAYS = {"near": "directly", "far": f"at {2 * DELAY * 1000:.0f} ms round trip"}

TRAIN = """\
import sys
print("ready", flush=True)
size = int(sys.argv[1]) if len(sys.argv) > 1 else 0
with open("model.ckpt", "wb") as file:
    import os
    for _ in range(size):
        file.write(os.urandom(1 << 20))
"""


@dataclass
class Place:
    """A laptop with a project of 2,000 files, and two ways to one host."""

    lab: Lab
    laptop: Laptop
    project: Path
    changes: int = 0

    def change_a_file(self) -> None:
        self.changes += 1
        (self.project / "pkg" / "changed.py").write_text(f"CHANGED = {self.changes}\n")

    # By hand.

    def ssh(self, way: str, *, master: bool) -> list[str]:
        """What a user has in the configuration: nothing, or a ControlMaster."""
        options = [
            f"-oControlPath={self.laptop.home}/hand-{way}.socket",
            "-oControlMaster=auto",
            "-oControlPersist=600",
        ]
        return ["ssh", *(options if master else ["-oControlPath=none"]), way]

    def rsync(self, flags: str, way: str, *words: str, master: bool) -> list[str]:
        return ["rsync", flags, "-e", shlex.join(self.ssh(way, master=master)[:-1]), *words]

    def seconds(self, *commands: list[str], first_line: str = "") -> float:
        """How long these commands take one after the other; with `first_line`, until the last one prints that."""
        started = time.monotonic()
        for command in commands[:-1]:
            subprocess.run(command, env=self.laptop.env, cwd=self.project, check=True, stdout=subprocess.DEVNULL)
        last = subprocess.Popen(
            commands[-1],
            env=self.laptop.env,
            cwd=self.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        assert last.stdout is not None
        if first_line:
            while line := last.stdout.readline():
                if first_line in line.decode():
                    break
            else:
                raise RuntimeError(f"{shlex.join(commands[-1])} never printed {first_line!r}")
            taken = time.monotonic() - started
            last.stdout.read()
        else:
            last.stdout.read()
        if last.wait() != 0:
            raise RuntimeError(f"{shlex.join(commands[-1])} ended with {last.returncode}")
        return taken if first_line else time.monotonic() - started

    # With gpurun.

    def gpurun(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gpurun", *arguments]

    def forget_connections(self) -> None:
        """The next question is a cold one."""
        for socket in Path(self.laptop.env["XDG_RUNTIME_DIR"]).rglob("*"):
            if socket.is_socket():
                command = ["ssh", "-F/dev/null", f"-oControlPath={socket}", "-O", "exit", "x"]
                subprocess.run(command, env=self.laptop.env, capture_output=True, check=False)


@contextlib.contextmanager
def up() -> Iterator[Place]:
    """The lab and a laptop; all of it goes at the end."""
    lab = Lab()
    lab.up()
    try:
        with FaultProxy(lab.gpu_host.sshd.port, delay=DELAY) as proxy, Laptop(lab) as laptop:
            for way, port in (("near", lab.gpu_host.sshd.port), ("far", proxy.port)):
                laptop.add_alias(way, port=port, user=ADA.name, lines=["LogLevel ERROR"])
                laptop.trust_port(port, like="ada")
            with laptop.hosts_file.open("a") as file:
                file.writelines(f'[hosts.{way}]\nbase_image = "{BASE_IMAGE}"\n' for way in WAYS)
            yield Place(lab, laptop, _project(laptop))
    finally:
        lab.down()


def _project(laptop: Laptop) -> Path:
    files: dict[str, str | bytes] = {"train.py": TRAIN, "gpurun.toml": "", "pkg/changed.py": "CHANGED = 0\n"}
    files |= {f"pkg/part{number % 40}/module{number}.py": os.urandom(1000).hex() for number in range(FILES - 2)}
    return laptop.project(files, git=True)
