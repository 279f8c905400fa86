"""A machine of its own on this machine: namespaces over an overlay of a Debian root.

A box has its own root file system, /tmp, /run, /dev, host name, machine id, boot id and process ids; the network is
this machine's. What is written in it is gone when it goes down, but for the folders that were bound into it. Killing
its init is a power cut: every process in it dies, containers too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.host import steps
from tests.lab.host.steps import LabError

SETUP = Path(__file__).with_name("box.sh")
CGROUPS = Path("/sys/fs/cgroup")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C",
}


@dataclass
class Box:
    """`lower`: read-only root file systems, the uppermost first. `binds`: folders out here and their paths inside."""

    directory: Path
    name: str
    lower: Sequence[Path]
    binds: Mapping[Path, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _init: int = 0

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def init(self) -> int:
        """The process id, out here, of the box's init. Raises LabError when the box is down."""
        if not self.is_up:
            raise LabError(f"{self.name} is down")
        return self._init

    @property
    def root(self) -> Path:
        """The box's root file system, seen from out here, for reading and for writing."""
        return Path(f"/proc/{self.init}/root")

    @property
    def cgroup(self) -> str:
        """The cgroup under which the box's containers live."""
        return f"gpurun-lab-{self.name}"

    def up(self) -> None:
        """Boot: a new boot id, the same machine id. Dies with the process that called it."""
        (self.directory / "box").mkdir(parents=True, exist_ok=True)
        machine = self.directory / "machine-id"
        if not machine.exists():
            machine.write_text(uuid.uuid4().hex + "\n")
        (self.directory / "boot_id").write_text(f"{uuid.uuid4()}\n")
        for outside in self.binds:
            outside.mkdir(parents=True, exist_ok=True)
        argv = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        argv += ["sh", str(SETUP), str(self.directory), self.name, ":".join(map(str, self.lower))]
        argv += [f"{outside}:{inside}" for outside, inside in self.binds.items()]
        log = self.directory / "box.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            steps.until(self._has_booted, step=f"booting {self.name}", seconds=20, said=log)
        except LabError:
            self.down()
            raise

    def _has_booted(self) -> bool:
        if not self.is_up or self._process is None:
            raise LabError(f"booting {self.name}: its init ended\n{(self.directory / 'box.log').read_text()}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._init = int(children[0])
        up = Path(f"/proc/{self._init}/root/run/lab/up")
        with contextlib.suppress(FileNotFoundError):
            return up.read_text() == (self.directory / "boot_id").read_text()
        return False

    def down(self) -> None:
        """Cut the power. Every process of the box is gone when this returns, and so are its mounts."""
        process, self._process = self._process, None
        if process is not None:
            if self._init:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._init, signal.SIGKILL)
            else:
                process.kill()
            process.wait(timeout=30)
            self._init = 0
        for controller in CGROUPS.glob(f"*/{self.cgroup}"):
            for folder, _, _ in os.walk(controller, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()

    def argv(self, command: Sequence[str], *, user: str = "root") -> list[str]:
        """`command` as a process of the box, with the environment of a fresh login of `user` but for a shell's."""
        enter = ["nsenter", "--target", str(self.init), "--mount", "--uts", "--pid", "--root", "--wd", "--"]
        if user != "root":
            enter += ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--reset-env"]
        return [*enter, *command]

    def run(self, *command: str, user: str = "root", stdin: bytes = b"", timeout: float = 120) -> str:
        """Run `command` in the box and return its stdout. Raises LabError on any exit code but 0."""
        step = f"{self.name}: {' '.join(command)}"
        return steps.run(self.argv(command, user=user), step=step, stdin=stdin, timeout=timeout, env=ENVIRONMENT)

    def daemon(self, program: str, *arguments: str, log: str) -> None:
        """Start `program` in the box as a child of its init, its output going to `log` in the box."""
        start = [
            "start-stop-daemon",
            "--start",
            "--background",
            "--output",
            log,
            "--startas",
            program,
            "--oknodo",
        ]
        self.run(*start, "--pidfile", f"/run/lab/{Path(program).name}.pid", "--make-pidfile", "--", *arguments)

    def processes(self, uid: int | None = None) -> list[int]:
        """The process ids, out here, of what runs in the box (of one user), containers aside."""
        namespace = Path(f"/proc/{self.init}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() == namespace and uid in (None, entry.stat().st_uid):
                    found.append(int(entry.name))
        return found

    def outside(self, inside: int) -> int:
        """The process id out here of the process that is `inside` in the box. Raises LabError without one."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if ids[-1] == str(inside):
                    return pid
        raise LabError(f"{self.name}: no process {inside}")
