"""Run `gpurun tunnel` in a test, read its output, and send requests through it."""

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

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.support.faultproxy import FaultProxy

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
    """The process in the foreground. `listeners` by name, as `--json` prints them."""

    process: subprocess.Popen[bytes]
    listeners: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # of stderr
    _opened: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        for stream, take in ((self.process.stderr, self._read_messages), (self.process.stdout, self._read_json)):
            threading.Thread(target=take, args=[stream], daemon=True).start()

    def _read_messages(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line.decode().rstrip())

    def _read_json(self, stream: Any) -> None:
        text = b""
        for line in stream:
            text += line
            with contextlib.suppress(ValueError):
                self.listeners = {each["name"]: each for each in json.loads(text)["listeners"]}
                self._opened.set()

    def opened(self) -> Tunnel:
        deadline = time.monotonic() + OPENS_IN
        while not self._opened.wait(0.1):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
        return self

    def url(self, name: str) -> str:
        return str(self.listeners[name]["url"])

    def wait_for_line(self, text: str, seconds: float) -> float:
        """Wait for a line with `text` and return how long it took; drop the lines up to it."""
        began = time.monotonic()
        while True:
            for at, line in enumerate(self.lines):
                if text in line:
                    del self.lines[: at + 1]
                    return time.monotonic() - began
            assert time.monotonic() < began + seconds, (text, self.lines)
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Send Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def tunnel(laptop: Laptop, *arguments: str, cwd: Path, **options: Any) -> Iterator[Tunnel]:
    """Open a tunnel and wait until it is open; close it at the end."""
    opening = Tunnel(laptop.start("tunnel", *arguments, "--json", cwd=cwd, **options))
    opening.read()
    try:
        yield opening.opened()
    finally:
        if opening.process.poll() is None:
            opening.interrupt()


@contextlib.contextmanager
def through_proxy(laptop: Laptop, host: LabHost, alias: str = "far") -> Iterator[FaultProxy]:
    """Add an alias that reaches the host through a proxy, whose faults the test controls."""
    with FaultProxy(host.sshd.port) as proxy:
        laptop.add_alias(alias, port=proxy.port)
        laptop.trust_port(proxy.port, like=host.alias)
        if host.engine:
            with laptop.hosts_file.open("a") as file:
                file.write(f'[hosts.{alias}]\nbase_image = "{BASE_IMAGE}"\n')
        yield proxy
        proxy.heal()


def get(url: str, *, seconds: float = 20, **headers: str) -> tuple[int, bytes]:
    """Send a GET and return status and body."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until_answers(url: str, seconds: float) -> float:
    """Send GETs until one is answered with 200; return the seconds that it took."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            if get(url, seconds=2)[0] == 200:
                return time.monotonic() - began
        assert time.monotonic() < began + seconds, f"no answer from {url}"
        time.sleep(0.05)
