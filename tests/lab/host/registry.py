"""A registry on loopback, with a small image to pull."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import bcrypt

from tests.lab.host import steps
from tests.lab.host.box import Box

STORAGE = "/var/lib/docker-registry"
LOG = "/var/log/registry.log"
USERS = "/etc/docker/registry/users"


class Registry:
    """Debian's docker-registry in `box`. `small:1` has four layers: Debian with Python, and three of 8 MB."""

    def __init__(self, box: Box, port: int) -> None:
        self.box = box
        self.port = port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, user: str = "", password: str = "") -> None:
        """Start the registry and wait until it listens. With a `user`, it lets in nobody else."""
        config: dict[str, Any] = {
            "version": "0.1",
            "storage": {
                "filesystem": {"rootdirectory": STORAGE},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": self.address},
        }
        (self.box.root / "etc/docker/registry").mkdir(parents=True, exist_ok=True)
        if user:
            secret = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
            (self.box.root / USERS.lstrip("/")).write_text(f"{user}:{secret}\n")
            config["auth"] = {"htpasswd": {"realm": "lab", "path": USERS}}
        (self.box.root / "etc/docker/registry/lab.json").write_text(json.dumps(config))
        self.box.daemon("/usr/bin/docker-registry", "serve", "/etc/docker/registry/lab.json", log=LOG)
        said = self.box.root / LOG.lstrip("/")
        steps.until(lambda: steps.answers(self.port), step="starting the registry", seconds=15, said=said)

    def stop(self) -> None:
        """End the registry at once: pulls that run break off, further ones are refused."""
        pidfile = self.box.root / "run/lab/docker-registry.pid"
        pid = pidfile.read_text().strip()
        self.box.run("kill", "-KILL", pid)
        gone = self.box.root / "proc" / pid
        steps.until(lambda: not gone.exists(), step="ending the registry", seconds=10)
        pidfile.unlink()

    def digest(self, name: str = "small", tag: str = "1") -> str:
        """The digest (`sha256:...`) of an image's manifest."""
        manifest = "application/vnd.docker.distribution.manifest.v2+json"
        url = f"http://{self.address}/v2/{name}/manifests/{tag}"
        request = urllib.request.Request(url, headers={"Accept": manifest}, method="HEAD")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
