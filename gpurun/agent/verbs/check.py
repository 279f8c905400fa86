"""`check`: return everything that the laptop's doctor needs about this host, and an echo to test forwards.

Answer: `{facts, rsync, toolkit, pythons, engine_free, disks, home: {type, machines}, ends_at_logout, echo: {port,
socket}}`; `engine_free` is in bytes, where images are stored. The stream after it only keeps the echo alive: it ends
when the client goes away, or after a minute.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import tempfile
import threading
import time
from typing import TYPE_CHECKING, List, Optional

from .. import machine, programs
from ..frames import Frames
from ..host import disks, facts
from ..images import environments, preflight
from ..paths import HostPaths

if TYPE_CHECKING:
    from ..schema.answers import CheckAnswer, Echo
    from ..schema.requests import CheckRequest

ECHO_FOR = 60.0  # seconds
_LOGIND = ("/etc/systemd/logind.conf", "/etc/systemd/logind.conf.d", "/run/systemd/logind.conf.d")


class _Echo:
    """Listen on loopback and on a Unix socket, and send back what arrives."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="gpurun-")
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.unix.bind(os.path.join(self.folder, "echo"))
        for listener in (self.tcp, self.unix):
            listener.listen(4)
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def where(self) -> Echo:
        return {"port": self.tcp.getsockname()[1], "socket": self.unix.getsockname()}

    def close(self) -> None:
        self.tcp.close()
        self.unix.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                with client:
                    client.settimeout(10.0)
                    client.sendall(client.recv(1024))
            except OSError:
                if listener.fileno() < 0:
                    return


_echo: Optional[_Echo] = None


def answer(request: CheckRequest, host: HostPaths) -> CheckAnswer:
    global _echo  # noqa: PLW0603 (made before the answer, which contains its address, and closed after the stream)
    host_facts = facts.host_facts(host, request.get("engine"), refresh=True)
    mounts = disks.read_mounts()
    if request.get("stream", True):
        _echo = _Echo()
    return {
        "facts": host_facts,
        "rsync": _version(["rsync", "--version"]),
        "toolkit": _version(["nvidia-ctk", "--version"]),
        "pythons": environments.find_pythons(),
        "engine_free": preflight.free_bytes(host_facts["engine"]["root"]) if host_facts["engine"] else None,
        "disks": disks.lasting(mounts, host_facts["user"]),
        "home": {"type": disks.type_of(mounts, host.root), "machines": machine.machines_here(host)},
        "ends_at_logout": ends_at_logout(host_facts["user"]),
        "echo": _echo.where() if _echo else None,
    }


def stream(request: CheckRequest, host: HostPaths, frames: Frames) -> None:
    deadline = time.monotonic() + ECHO_FOR
    try:
        while time.monotonic() < deadline and not _client_is_gone(0.5):
            frames.beat()
        frames.end({})
    finally:
        if _echo is not None:
            _echo.close()


def _client_is_gone(seconds: float) -> bool:
    """Return whether the reader of stdout has gone away within this time: then no process of gpurun may stay for it."""
    poll = select.poll()
    poll.register(1, 0)  # only errors and hang-ups, which poll always reports
    return bool(poll.poll(seconds * 1000))


def ends_at_logout(user: str) -> bool:
    """Return whether systemd ends a user's processes when the last session closes: then a supervisor would not survive."""
    if user == "root" or os.path.exists("/var/lib/systemd/linger/" + user):
        return False
    files = []
    for path in _LOGIND:
        if os.path.isdir(path):
            files += sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".conf"))
        else:
            files.append(path)
    setting = "no"
    for name in files:
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                values = re.findall(r"^\s*KillUserProcesses\s*=\s*(\S+)", file.read(), re.MULTILINE)
        except OSError:
            continue
        setting = values[-1].lower() if values else setting
    return setting in ("yes", "true", "1", "on")


def _version(argv: List[str]) -> Optional[str]:
    """Return the first number with dots in a program's output, or None when the program is missing."""
    try:
        output = programs.run(argv, timeout=10).text
    except (FileNotFoundError, PermissionError):
        return None
    number = re.search(r"\d+(?:\.\d+)+", output)
    return number.group(0) if number else ""
