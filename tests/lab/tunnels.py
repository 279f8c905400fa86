"""A `gpurun tunnel` that a test holds open, what it says, and requests through it as a user's programs make them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faultproxy import FaultProxy
from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop

OPENS_IN = 120.0  # seconds: a busy machine, and a service that starts

# A program with a page, as a user's own dashboard would be: it listens on its own loopback alone.
SERVER = """\
import http.server, os, sys, time
time.sleep(float(os.environ.get("LATE", "0")))
class Page(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        size = int(self.path.strip("/") or "0")
        body = b"x" * size if size else b"hello from the job"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 200
print("serving", flush=True)
Server(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


@dataclass
class Tunnel:
    """The process in the foreground. `doors` by name, as `--json` tells them."""

    process: subprocess.Popen[bytes]
    doors: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # of stderr
    _opened: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        for stream, take in ((self.process.stderr, self._hear), (self.process.stdout, self._learn)):
            threading.Thread(target=take, args=[stream], daemon=True).start()

    def _hear(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line.decode().rstrip())

    def _learn(self, stream: Any) -> None:
        said = b""
        for line in stream:
            said += line
            with contextlib.suppress(ValueError):
                self.doors = {door["name"]: door for door in json.loads(said)["doors"]}
                self._opened.set()

    def opened(self) -> Tunnel:
        deadline = time.monotonic() + OPENS_IN
        while not self._opened.wait(0.1):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
        return self

    def url(self, name: str) -> str:
        return str(self.doors[name]["url"])

    def until_said(self, text: str, seconds: float) -> float:
        """How long it took until a line had `text`; lines are heard once."""
        began = time.monotonic()
        while True:
            for at, line in enumerate(self.lines):
                if text in line:
                    del self.lines[: at + 1]
                    return time.monotonic() - began
            assert time.monotonic() < began + seconds, (text, self.lines)
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def tunnel(laptop: Laptop, *arguments: str, cwd: Path, **options: Any) -> Iterator[Tunnel]:
    """Open one and wait until it is there; it is closed at the end."""
    opening = Tunnel(laptop.start("tunnel", *arguments, "--json", cwd=cwd, **options))
    opening.read()
    try:
        yield opening.opened()
    finally:
        if opening.process.poll() is None:
            opening.interrupt()


@contextlib.contextmanager
def through_proxy(laptop: Laptop, host: LabHost, alias: str = "far") -> Iterator[FaultProxy]:
    """A way to the host that can be disturbed, as an alias of the laptop's own."""
    with FaultProxy(host.sshd.port) as proxy:
        laptop.add_alias(alias, port=proxy.port)
        laptop.trust_port(proxy.port, like=host.alias)
        if host.engine:
            with laptop.hosts_file.open("a") as file:
                file.write(f'[hosts.{alias}]\nbase_image = "{BASE_IMAGE}"\n')
        yield proxy
        proxy.heal()


def get(url: str, *, seconds: float = 20, **headers: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until_answers(url: str, seconds: float) -> float:
    """Seconds until a GET was answered with 200, asked for all the while."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            if get(url, seconds=2)[0] == 200:
                return time.monotonic() - began
        assert time.monotonic() < began + seconds, f"no answer from {url}"
        time.sleep(0.05)
