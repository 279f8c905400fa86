"""A host of the lab: a box with an sshd, users, GPUs, and, but for a bare one, an engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.host import steps
from tests.lab.host.box import Box
from tests.lab.host.engine import Engine
from tests.lab.host.gpus import Gpus
from tests.lab.host.registry import Registry
from tests.lab.host.sshd import Sshd
from tests.lab.host.users import ADA, PAT, USERS, User

PROGRAM_FOLDERS = ("usr/local/bin", "usr/bin", "usr/sbin", "usr/local/sbin")
HIDDEN = ".hidden-by-the-lab"
RUN_FILES = ("events.jsonl", "exit.json", "supervisor.log", "prepare.log", "out/log")
SHARED_FOLDERS = ("tmp", "var/tmp", "dev/shm", "run/lock", "run/user")


@dataclass
class LabHost:
    """`alias`: what the lab's SSH configuration calls it, for its user ada. `lacks`: programs that it hasn't got."""

    alias: str
    box: Box
    sshd: Sshd
    gpus: Gpus
    homes: Path
    authorized_key: str
    engine: Engine | None = None
    registry: Registry | None = None
    engine_options: Sequence[str] = ()
    lacks: Sequence[str] = ()
    _hidden: list[Path] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The host's root file system, seen from out here."""
        return self.box.root

    def home(self, user: User = ADA) -> Path:
        """The user's home on the host, seen from out here (on the host it is `user.home`)."""
        return self.homes / user.name

    def run(self, *command: str, user: User | None = ADA, stdin: bytes = b"", timeout: float = 120) -> str:
        """Run `command` on the host, not over SSH, as `user` or as root (None), and return its stdout."""
        return self.box.run(*command, user=user.name if user else "root", stdin=stdin, timeout=timeout)

    def up(self) -> None:
        """Boot the host and wait until all its services answer."""
        self.box.up()
        self._hidden.clear()
        self.gpus.reset()
        for folder in PROGRAM_FOLDERS:
            for program in self.lacks:
                (self.root / folder / program).unlink(missing_ok=True)
        self._fill_homes()
        self.sshd.start()
        if self.engine:
            self.engine.start(*self.engine_options)
        if self.registry:
            self.registry.start()

    def down(self) -> None:
        """Cut the power."""
        self.box.down()

    def reboot(self, *, engine: bool = True) -> None:
        """A power cut and a boot: every process is gone, the boot id is another; homes and images stay."""
        self.down()
        wanted, self.engine = self.engine, self.engine if engine else None
        try:
            self.up()
        finally:
            self.engine = wanted

    def reset(self) -> None:
        """As new: no process or container of a user, empty homes and shared folders, all services up, GPUs idle."""
        if not self.box.is_up:
            self.up()
        self.kill_users()
        if self.engine:
            self.engine.start(*self.engine_options)
            self.engine.remove_containers()
            self.kill_users()
        self.unhide()
        self.gpus.reset()
        self._empty()
        self._fill_homes()
        self.sshd.start()
        if self.registry and not steps.answers(self.registry.port):
            self.registry.start()

    def kill_users(self) -> None:
        """End every process of the lab's users on this host, containers aside."""

        def none_left() -> bool:
            pids = [pid for user in USERS for pid in self.box.processes(user.uid)]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        steps.until(none_left, step=f"ending the users' processes on {self.box.name}", seconds=20)

    def processes(self, user: User = ADA) -> list[str]:
        """The command lines of what `user` runs on the host, sshd's own processes and containers aside."""
        found = []
        for pid in self.box.processes(user.uid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if line and not line.startswith("sshd:"):  # the line of a zombie is empty
                    found.append(line.strip())
        return found

    def told(self) -> str:
        """What the runs on this host have written down, the end of each file: for the report of a failed test."""
        told = ""
        for name in RUN_FILES:
            for file in sorted(self.homes.glob(f"*/.gpurun/runs/*/{name}")):
                with contextlib.suppress(OSError):
                    lines = file.read_bytes()[-20_000:].decode(errors="replace").splitlines()
                    told += f"--- {file.relative_to(self.homes)}\n" + "".join(f"{line}\n" for line in lines[-30:])
        return told

    def hide(self, *programs: str) -> None:
        """Make the host one that lacks `programs`, until `unhide` or the end of the test."""
        for folder in PROGRAM_FOLDERS:
            for program in programs:
                path = self.root / folder / program
                if path.exists() or path.is_symlink():
                    path.rename(path.with_name(path.name + HIDDEN))
                    self._hidden.append(path)

    def unhide(self) -> None:
        """Give back all that was hidden."""
        while self._hidden:
            path = self._hidden.pop()
            path.with_name(path.name + HIDDEN).rename(path)

    def _empty(self) -> None:
        """Empty the homes and the folders that all users share; what a test mounted on them goes first."""
        places = tuple(f"/{folder}/" for folder in ("home", *SHARED_FOLDERS))
        mounts = (self.root / "proc/1/mountinfo").read_text().splitlines()
        for mount in reversed([line.split()[4] for line in mounts]):
            if mount.startswith(places):
                self.box.run("umount", "--lazy", mount.encode().decode("unicode_escape"))
        for folder in (self.homes, *(self.root / shared for shared in SHARED_FOLDERS)):
            for entry in folder.iterdir() if folder.exists() else ():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def _fill_homes(self) -> None:
        """Homes as `useradd` makes them, with the lab's key let in."""
        for user in USERS:
            home = self.homes / user.name
            if home.exists():
                continue
            shutil.copytree(self.root / "etc/skel", home)
            (home / ".ssh").mkdir(mode=0o700)
            if user != PAT:  # whose way in is the password
                (home / ".ssh/authorized_keys").write_text(self.authorized_key)
                (home / ".ssh/authorized_keys").chmod(0o600)
            home.chmod(0o750)
            for path in (home, *home.rglob("*")):
                os.chown(path, user.uid, user.uid)
