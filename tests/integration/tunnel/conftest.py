"""A laptop and the embedded host, with runs that look live although nothing runs."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpurun.agent import machine
from gpurun.agent.host import locks
from gpurun.agent.paths import HostPaths
from gpurun.agent.setup import sockets
from gpurun.config.hosts import HostProfile
from gpurun.remote import wire
from gpurun.remote.wire import Wire
from gpurun.tunnel.registry import OpenListener
from tests.support.run_folder import RunFolder

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


class Box:
    """A host, its runs, and the wire to it."""

    def __init__(self, host: EmbeddedHost, stack: ExitStack) -> None:
        self.host, self._stack = host, stack
        self.wire: Wire = wire.connect(HostProfile(host.alias), interactive=False)
        stack.callback(self.wire.connection.close)

    def run(self, name: str = "train", **job: Any) -> RunFolder:
        """Make a run that is live until the test ends it: the test holds the lock of its supervisor."""
        fields = {"owner": self.wire.owner, "created": 1.0, "project": {"name": "digits"}, "token": "t", **job}
        here = machine.host_id(HostPaths(str(self.host.home / ".gpurun")))
        fields["host"] = {"machine_id": machine.machine_id(), "id": here, "engine": None, **fields.get("host", {})}
        run = RunFolder(self.host.home / ".gpurun", f"{name}-{secrets.token_hex(2)}", **fields)
        held = locks.acquire(locks.run_lock(run.paths.id))
        assert held is not None
        self._stack.callback(shutil.rmtree, run.root)
        self._stack.callback(sockets.remove, run.paths)
        self._stack.callback(held.release)
        return run

    def service(self, kind: str = "tensorboard", *, about: str | None = None, **job: Any) -> RunFolder:
        fields = {"kind": kind, "title": "digits on demo", "idle": 60.0, "run": about}
        return self.run(kind, service=fields, **job)


def box_of(host: EmbeddedHost, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Use the locks of that host in this process, and let its ssh connect there."""
    monkeypatch.setenv("GPURUN_LOCKS", str(host.workdir / "locks"))
    monkeypatch.setenv("GPURUN_SSH", shlex.join(host.ssh_command))
    return Box(host, stack)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def laptop(home: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return its home; ssh's sockets are in a folder with a short path."""
    runtime = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    return home


@pytest.fixture
def box(embedded_host: EmbeddedHost, laptop: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Box:
    return box_of(embedded_host, stack, monkeypatch)


BOARD = OpenListener("TensorBoard", "http://127.0.0.1:12345/", 12345, "tensorboard-1111")
# A tunnel's process: it has an entry in the registry until it gets a signal.
TUNNEL_PROCESS = """
import json, signal, sys
from gpurun.tunnel.registry import Entry, OpenListener, Tunnel
ignores_term, tunnel, listener = json.loads(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
entry = Entry(Tunnel(**tunnel))
entry.update(state="up", listeners=(OpenListener(**listener),))
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1 if ignores_term else signal.SIGTERM])
entry.close()
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start a process that only has an entry in the registry."""
    running = []

    def start(tunnel_id: str, host: str = "box", *, ignores_term: bool = False, **more: Any) -> subprocess.Popen[bytes]:
        argument = json.dumps([ignores_term, {"id": tunnel_id, "host": host, **more}, vars(BOARD)])
        process = subprocess.Popen([sys.executable, "-c", TUNNEL_PROCESS, argument], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()
