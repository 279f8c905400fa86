"""A real sshd in a box, on a loopback port."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from tests.lab.host import steps
from tests.lab.host.box import Box
from tests.lab.host.steps import LabError

LOG = "var/log/sshd.log"
KEY = "etc/ssh/ssh_host_ed25519_key"


def make_key(path: Path, comment: str) -> None:
    """Make an ed25519 key pair without a passphrase at `path`, in place of one that may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    steps.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path], step="making an SSH key")


@dataclass(frozen=True)
class Traffic:
    """What sshd has logged: accepted logins, and sessions (a command, a shell, or a subsystem each)."""

    logins: int
    sessions: int

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.logins - earlier.logins, self.sessions - earlier.sessions)


class Sshd:
    """`directory` keeps the host key, so that it is the same after a reboot."""

    def __init__(self, box: Box, directory: Path, port: int) -> None:
        self.box = box
        self.port = port
        self._key = directory / "ssh_host_ed25519_key"

    @property
    def public_key(self) -> str:
        """Type and base64 of the host's lasting key, as known_hosts has them."""
        return " ".join(self._key.with_suffix(".pub").read_text().split()[:2])

    @property
    def known_hosts_line(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.public_key}\n"

    def start(self, *options: str) -> None:
        """Start sshd with the lasting host key, and further `options` ("MaxSessions 1"); wait until it listens."""
        if not self._key.exists():
            make_key(self._key, f"host key of {self.box.name}")
        self._start_with(self._key, *options)

    def _start_with(self, key: Path, *options: str) -> None:
        self.stop()
        inside = self.box.root / KEY
        inside.write_bytes(key.read_bytes())
        inside.chmod(0o600)
        told = [word for option in options for word in ("-o", option)]
        self.box.run("/usr/sbin/sshd", "-p", str(self.port), "-E", f"/{LOG}", "-o", "PidFile=/run/sshd.pid", *told)
        step = f"starting sshd of {self.box.name}"
        steps.until(lambda: steps.answers(self.port), step=step, seconds=10, said=self.box.root / LOG)

    def stop(self) -> None:
        """Listen no more. Connections that stand stay: each has a process of its own."""
        pidfile = self.box.root / "run/sshd.pid"
        if pidfile.exists():
            pid = pidfile.read_text().strip()
            with contextlib.suppress(LabError):
                self.box.run("kill", pid)
            gone = self.box.root / "proc" / pid
            steps.until(lambda: not gone.exists(), step=f"ending sshd of {self.box.name}", seconds=10)
            pidfile.unlink(missing_ok=True)

    def swap_key(self, directory: Path) -> None:
        """Answer with another host key, made in `directory`, until the next `start`."""
        make_key(directory / "other_host_key", "a stranger")
        self._start_with(directory / "other_host_key")

    def traffic(self) -> Traffic:
        """Logins and sessions since the box was booted."""
        log = self.box.root / LOG
        said = log.read_text(errors="replace") if log.exists() else ""
        return Traffic(len(re.findall(r"Accepted \S+ for ", said)), said.count("Starting session: "))
