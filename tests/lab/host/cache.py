"""What is built once and kept outside the checkout, each part under the hash of what it is made from."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.host import steps

RECIPES = Path(__file__).parent.parent / "recipes"
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def directory() -> Path:
    """The cache's folder: GPURUN_LAB_CACHE, or one under /var/cache."""
    return Path(os.environ.get("GPURUN_LAB_CACHE", "/var/cache/gpurun-lab"))


@dataclass(frozen=True)
class Roots:
    """The root file systems that boxes are made of, and the key under which their parts are cached."""

    debian: Path
    host: Path
    torch: Path

    @property
    def key(self) -> str:
        """Changes whenever one of the root file systems does."""
        return digest(self.debian.name, self.host.name, self.torch.name)


def roots() -> Roots:
    """Build what is missing of the root file systems; minutes the first time, nothing later."""
    with locked(directory() / "build.lock"):
        debian = _rootfs("debian", "Debian with Python", minutes=10)
        host = _rootfs("host", "a host with sshd and a Docker engine", debian, minutes=15)
        torch = _rootfs("torch", "PyTorch (3.7 GB to download)", debian, minutes=60)
        return Roots(debian, host, torch)


def _rootfs(name: str, what: str, *parts: Path, minutes: float) -> Path:
    recipe = RECIPES / f"{name}.sh"
    made = directory() / f"{name}-{digest(recipe.read_text(), *(part.name for part in parts))}"
    if not made.exists():
        say(f"building {what}, once")
        unfinished = made.with_name(f"{made.name}.tmp")
        for leftover in made.parent.glob(f"{unfinished.name}*"):
            shutil.rmtree(leftover)
        # In namespaces of its own: when the recipe ends, however it does, so do its mounts and processes.
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", str(recipe)]
        argv += [str(unfinished), *map(str, parts), str(trust())]
        steps.run(argv, step=f"building {what} ({recipe.name})", timeout=minutes * 60)
        unfinished.rename(made)
    return made


def trust() -> Path:
    """A folder with this machine's certificates and the part of its pip configuration that is good in any root."""
    made = directory() / "trust"
    made.mkdir(parents=True, exist_ok=True)
    named = [os.environ[name] for name in ("SSL_CERT_FILE", "PIP_CERT") if os.environ.get(name)]
    bundle = next((Path(path) for path in (*named, *CA_BUNDLES) if Path(path).is_file()), None)
    (made / "ca-certificates.crt").write_bytes(bundle.read_bytes() if bundle else b"")
    (made / "pip.conf").write_text(_pip_conf())
    return made


def _pip_conf() -> str:
    """The indexes pip uses here, but for those that are folders of this machine."""
    found: dict[str, str] = {}
    config = Path.home() / ".config/pip/pip.conf"
    for path in (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", config):
        parser = configparser.RawConfigParser()
        parser.read(path)
        if parser.has_section("global"):
            found.update(parser.items("global"))
    found.update({key: os.environ[f"PIP_{key.replace('-', '_').upper()}"] for key in _INDEX_KEYS if _pip_env(key)})
    lines = [
        "[global]",
        "cert = /etc/ssl/certs/ca-certificates.crt",
        "timeout = 180",
        "disable-pip-version-check = true",
    ]
    for key in _INDEX_KEYS:
        remote = [word for word in found.get(key, "").split() if not word.startswith(("file:", "/", "."))]
        if remote:
            lines.append(f"{key} = {' '.join(remote)}")
    return "\n".join(lines) + "\n"


_INDEX_KEYS = ("index-url", "extra-index-url", "find-links", "trusted-host")


def _pip_env(key: str) -> bool:
    return bool(os.environ.get(f"PIP_{key.replace('-', '_').upper()}"))


def digest(*parts: str) -> str:
    """A short content hash of `parts`."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, waiting for whoever holds it now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Tell a person who waits what the lab is doing."""
    print(f"lab: {line}", file=sys.__stderr__, flush=True)
