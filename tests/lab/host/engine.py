"""A Docker engine of a box's own, which tests may stop, kill and start."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

from tests.lab.host import steps
from tests.lab.host.box import Box
from tests.lab.host.steps import LabError

LOG = "/var/log/dockerd.log"
# A broken pull is told at once, rather than after five attempts and 50 s; a stop gives containers 5 s, not 15.
SWIFT = ("--max-download-attempts=1", "--shutdown-timeout=5")
PIDS = ("run/docker.pid", "run/docker/containerd/containerd.pid")


class Engine:
    """dockerd in `box`, with its data in a folder that outlives the box. No bridge, no firewall rules."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def start(self, *options: str) -> None:
        """Start dockerd with further `options` and wait until it answers. Nothing happens when it runs."""
        if self.answers():
            return
        for leftover in PIDS:  # of an engine that was killed: its process id may be another process's now
            (self.box.root / leftover).unlink(missing_ok=True)
        base = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--cgroup-parent", self.box.cgroup]
        self.box.daemon("/usr/sbin/dockerd", *base, *SWIFT, *options, log=LOG)
        said = self.box.root / LOG.lstrip("/")
        steps.until(self.answers, step=f"starting the engine of {self.box.name}", seconds=300, said=said)

    def answers(self) -> bool:
        """Does the engine answer?"""
        with contextlib.suppress(LabError):
            self.docker("version", timeout=10)
            return True
        return False

    def stop(self) -> None:
        """End dockerd the clean way (TERM) and wait until it is gone. Its containers are stopped with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End dockerd by SIGKILL. Its containers go on without it."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        pidfile = self.box.root / PIDS[0]
        if not pidfile.exists():
            return
        pid = pidfile.read_text().strip()
        with contextlib.suppress(LabError):
            self.box.run("kill", f"-{number.value}", pid)
        gone = self.box.root / "proc" / pid
        steps.until(lambda: not gone.exists(), step=f"ending the engine of {self.box.name}", seconds=60)
        pidfile.unlink(missing_ok=True)

    def docker(self, *arguments: str, stdin: bytes = b"", timeout: float = 120) -> str:
        """Run docker in the box, as root, and return its stdout. Raises LabError on any exit code but 0."""
        return self.box.run("docker", *arguments, stdin=stdin, timeout=timeout)

    def containers(self) -> list[str]:
        """The names of all containers, those that have ended too."""
        return self.docker("ps", "--all", "--format", "{{.Names}}").split()

    def jobs(self) -> list[str]:
        """The names of the containers of runs; what only asks an image for a moment is none."""
        return [container for container in self.containers() if container.startswith("gpurun-")]

    def remove_containers(self) -> None:
        """Remove all containers with their volumes, those too of a build that is being called off."""

        def none_left() -> bool:
            ids = self.docker("ps", "--all", "--quiet", "--no-trunc").split()
            if ids:
                with contextlib.suppress(LabError):  # the build removes its own at the same time
                    self.docker("rm", "--force", "--volumes", *ids)
            return not ids

        steps.until(none_left, step=f"removing the containers of {self.box.name}", seconds=60)


def copy_data(source: Path, destination: Path) -> None:
    """Copy an engine's data folder; the files of image layers, which nobody writes to, become hard links."""
    unfinished = destination.with_name(f"{destination.name}.tmp")
    for leftover in (unfinished, destination):
        if leftover.exists():
            shutil.rmtree(leftover)
    unfinished.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        links = ["--link"] if entry.name == "overlay2" else []
        steps.run(["cp", "-a", *links, entry, unfinished], step="copying the engine's images", timeout=300)
    unfinished.rename(destination)
