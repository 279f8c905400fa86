"""The lab as a whole: hosts with a GPU engine and without, a registry, and the SSH configuration to reach them.

Several labs may be up at once on one machine: each takes a slot of its own in the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.lab.host import cache, golden, steps
from tests.lab.host.box import Box
from tests.lab.host.cache import Roots, say
from tests.lab.host.engine import Engine, copy_data
from tests.lab.host.gpus import Gpus
from tests.lab.host.labhost import LabHost
from tests.lab.host.registry import STORAGE, Registry
from tests.lab.host.sshd import Sshd, make_key
from tests.lab.host.steps import LabError
from tests.lab.host.users import ADA, USERS, User

SLOTS = 8
KEPT_DAYS = 7
PACKAGES = {"debootstrap": "debootstrap", "ssh": "openssh-client", "rsync": "rsync", "git": "git"}
NAMESPACES = ("unshare", "nsenter", "setpriv", "pivot_root")


@dataclass(frozen=True)
class Alias:
    """A name in the laptop's SSH configuration."""

    name: str
    host: LabHost
    user: User


@dataclass
class Lab:
    """`up` brings up two hosts: `gpu_host` with an engine and a registry, `bare_host` without but with torch."""

    hosts: dict[str, LabHost] = field(default_factory=dict)
    _slot: Path = Path()
    _lock: IO[str] | None = None
    _roots: Roots | None = None

    @property
    def gpu_host(self) -> LabHost:
        return self.hosts["ada"]

    @property
    def bare_host(self) -> LabHost:
        return self.hosts["bare"]

    @property
    def registry(self) -> Registry:
        registry = self.gpu_host.registry
        if registry is None:
            raise LabError("the lab's host has no registry")
        return registry

    @property
    def key(self) -> Path:
        """The private key that every user of the lab lets in."""
        return self._slot / "id_ed25519"

    @property
    def aliases(self) -> list[Alias]:
        """Every user of the host with the engine under a name of their own; ada alone on all others."""
        of_users = [Alias(user.alias, self.gpu_host, user) for user in USERS]
        return of_users + [Alias(name, host, ADA) for name, host in self.hosts.items() if name != ADA.alias]

    def up(self) -> None:
        """Build what is missing, take a slot, boot the hosts. Raises LabError with what the failing step said."""
        _check_machine()
        self._roots = cache.roots()
        images = golden.golden(self._roots)
        self._take_slot()
        self._forget(images)
        if not self.key.exists():
            make_key(self.key, "the lab's key")
        try:
            self.add_host("ada", engine_data=images)
            self.add_host("bare")
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Cut the power of every host and give the slot back."""
        for name in list(self.hosts):
            self.remove_host(name)
        if self._lock:
            self._lock.close()
            self._lock = None

    def add_host(self, name: str, *, engine_data: Path | None = None, homes: Path | None = None) -> LabHost:
        """Boot a further host. `homes` of another host make it share them; without `engine_data` it is bare."""
        if self._roots is None:
            raise LabError("the lab is down")
        folder = self._slot / name
        homes = homes or folder / "home"
        shutil.rmtree(folder / "home", ignore_errors=True)
        binds = {homes: "/home"}
        lower = [self._roots.host]
        if engine_data:
            _refresh(folder, engine_data)
            binds |= {folder / "docker": "/var/lib/docker", folder / "registry": STORAGE}
        else:
            lower.insert(0, self._roots.torch)
        box = Box(folder, f"{self._slot.name}-{name}", lower, binds)
        host = LabHost(name, box, Sshd(box, folder, steps.free_port()), Gpus(box), homes, self._public_key)
        if engine_data:
            host.engine = Engine(box)
            host.registry = Registry(box, steps.free_port())
        else:
            host.lacks = ("docker", "dockerd", "podman", "nvidia-ctk")
        self.hosts[name] = host
        host.up()
        if host.engine:
            host.engine.remove_containers()
            golden.make_base_image(host.engine)
        return host

    def remove_host(self, name: str) -> None:
        """Cut the power of a host and forget it; its images stay in the slot."""
        self.hosts.pop(name).down()

    @property
    def _public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text()

    def _forget(self, images: Path) -> None:
        """Remove what recipes of other days made, unless another lab is up that may live on it."""
        if self._roots is None:
            return
        kept = {self._roots.debian, self._roots.host, self._roots.torch, images}
        with contextlib.ExitStack() as others, contextlib.suppress(BlockingIOError):
            for lock in cache.directory().glob("slot*/lock"):
                if lock.parent != self._slot:
                    fcntl.flock(others.enter_context(lock.open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            for made in cache.directory().iterdir():
                if made.name.partition("-")[0] in {"debian", "host", "torch", "engine"} and made not in kept:
                    shutil.rmtree(made)

    def _take_slot(self) -> None:
        for number in range(SLOTS):
            slot = cache.directory() / f"slot{number}"
            slot.mkdir(parents=True, exist_ok=True)
            lock = (slot / "lock").open("w")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._slot, self._lock = slot, lock
                return
            lock.close()
        raise LabError(f"all {SLOTS} slots in {cache.directory()} are taken by labs that are up")


def _refresh(folder: Path, engine_data: Path) -> None:
    """Give the host the engine data and the registry of `engine_data`, unless it has them already.

    What tests have built on them since goes with them in the end, so that it doesn't pile up.
    """
    marker = folder / "engine.key"
    fresh = marker.exists() and time.time() - marker.stat().st_mtime < KEPT_DAYS * 86400
    if fresh and marker.read_text() == engine_data.name:
        return
    marker.unlink(missing_ok=True)
    copy_data(engine_data / "docker", folder / "docker")
    shutil.rmtree(folder / "registry", ignore_errors=True)
    shutil.copytree(engine_data / "registry", folder / "registry")
    marker.write_text(engine_data.name)


def _check_machine() -> None:
    """Install what the lab needs on the machine itself: programs only, no service."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root, for namespaces and mounts: run it with sudo")
    lacking = [program for program in NAMESPACES if not shutil.which(program)]
    if lacking:
        raise LabError(f"the lab needs util-linux's {', '.join(lacking)}")
    packages = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if packages:
        say(f"installing {' '.join(packages)}")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        steps.run(["apt-get", "update"], step="apt-get update", timeout=300, env=env)
        argv = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        steps.run(argv, step=f"installing {' '.join(packages)}", timeout=900, env=env)
