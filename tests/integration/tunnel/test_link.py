"""A link over real ssh to the embedded host: it connects, reconnects, closes, and leaves nothing behind."""

from __future__ import annotations

import os
import queue
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.setup import sockets
from gpurun.demo.host import EmbeddedHost
from gpurun.errors import GpurunError, HostError, HostUnreachable
from gpurun.remote import reconnect
from gpurun.ssh.openssh import socket_folder
from gpurun.store import run_store
from gpurun.tunnel import link as module
from gpurun.tunnel.link import Link, Target
from tests.integration.tunnel.conftest import Box, box_of
from tests.support.faultproxy import FaultProxy
from tests.support.part import only
from tests.support.run_folder import RunFolder
from tests.support.waiting import eventually

WAIT = 30.0  # seconds


class Events:
    """The events of a link, in their order."""

    def __init__(self) -> None:
        self.queue: queue.Queue[str] = queue.Queue()

    def up(self) -> None:
        self.queue.put("up")

    def lost(self, what: str) -> None:
        self.queue.put("lost")

    def back(self) -> None:
        self.queue.put("back")

    def exposed(self) -> None:
        self.queue.put("exposed")

    def asks(self) -> None:
        self.queue.put("asks")

    def state(self, record: Any) -> None:
        self.queue.put(record["state"])
        if record["ready"]:
            self.queue.put("ready")

    def until(self, event: str) -> list[str]:
        """Return the events up to and including this one."""
        events = []
        while event not in events:
            events.append(self.queue.get(timeout=WAIT))
        return events


class RunningLink:
    """A link that runs in a thread."""

    def __init__(self, box: Box, *targets: Target) -> None:
        self.targets, self.events = targets, Events()
        self.link = Link(box.wire, "abcd", targets, self.events)
        self.failure: GpurunError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.link.run()
        except GpurunError as error:
            self.failure = error
            self.events.queue.put("failed")

    def exchange(self, target: Target, data: bytes = b"hello") -> bytes:
        """Send `data` to the target and return what comes back."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT)
            client.connect(str(self.link.socket(target)))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as file:
                return file.read()

    def wait_until_ended(self) -> None:
        self._thread.join(WAIT)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.link.end()
        self.wait_until_ended()


def serve(server: socket.socket) -> Iterator[socket.socket]:
    """Send back what comes, in capitals."""

    def talk(near: socket.socket) -> None:
        with near, suppress(OSError):
            while data := near.recv(1 << 16):
                near.sendall(data.upper())

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                threading.Thread(target=talk, args=(near,), daemon=True).start()

    with server:
        threading.Thread(target=accept, daemon=True).start()
        yield server
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def port() -> Iterator[Target]:
    """Return a port of the host that a program listens on."""
    for server in serve(socket.create_server(("127.0.0.1", 0))):
        yield Target("port", None, server.getsockname()[1])


StartLink = Callable[..., RunningLink]


@pytest.fixture
def start_link(box: Box, stack: ExitStack) -> StartLink:
    """Start a link; it is closed at the end of the test."""

    def start_link(*targets: Target, box: Box = box) -> RunningLink:
        running = RunningLink(box, *targets)
        stack.callback(running.close)
        return running

    return start_link


def child_pids() -> set[str]:
    """Return the pids of our ssh processes and of what the embedded host runs."""
    pids: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):
            pids.update((task / "children").read_text().split())
    return pids


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def tunnel_sockets() -> list[str]:
    return sorted(path.name for path in socket_folder().iterdir() if path.name.startswith("t-"))


def shorten_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIGN_OF_LIFE_EVERY", 0.5)
    monkeypatch.setattr(reconnect, "SILENT", 2.0)


def test_link_forwards_bytes_and_leaves_nothing(box: Box, port: Target) -> None:
    box.wire.ask("data", {"name": "warm"})  # opens the shared connection too
    files, ours = open_files(), child_pids()
    running = RunningLink(box, port)
    assert running.events.until("up") == ["up"]
    assert running.exchange(port) == b"HELLO"
    large = os.urandom(5_000_000)
    assert running.exchange(port, large) == large.upper()
    assert tunnel_sockets() == ["t-abcd", "t-abcd.0"]
    running.close()
    assert running.failure is None
    assert tunnel_sockets() == []
    eventually(lambda: child_pids() <= ours)
    eventually(lambda: open_files() <= files)
    assert box.wire.connection.is_up()


def test_only_the_user_can_reach_the_sockets(start_link: StartLink, port: Target) -> None:
    start_link(port).events.until("up")
    assert socket_folder().stat().st_mode & 0o777 == 0o700


def listening(run: RunFolder) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.join(sockets.make(run.paths, only(host={"runtime": "bare"})), words.TENSORBOARD))
    server.listen()
    return server


def test_link_reports_a_ready_service_and_ends_with_it(box: Box, start_link: StartLink) -> None:
    run = box.service()
    target = Target("TensorBoard", run.paths.id)
    running = start_link(target)
    assert running.events.until("running") == ["up", "running"]
    for _ in serve(listening(run)):
        running.events.until("ready")
        assert running.exchange(target) == b"HELLO"
    run.end()
    assert running.events.until("succeeded")
    running.wait_until_ended()
    assert running.failure is None
    entry = run_store.find(run.paths.id)
    assert entry is not None
    assert entry.state == words.SUCCEEDED, "this laptop stores it"
    assert tunnel_sockets() == []


def test_link_gets_the_token_of_jupyter(box: Box, start_link: StartLink) -> None:
    run = box.service(words.JUPYTER)
    Path(run.paths.token).parent.mkdir(parents=True)
    Path(run.paths.token).write_text("s3cret")
    running = start_link(Target("Jupyter", run.paths.id), Target("port", None, 9))
    running.events.until("up")
    assert running.link.tokens == {"Jupyter": "s3cret"}


def test_link_reconnects_after_the_connection_is_cut(start_link: StartLink, box: Box, port: Target) -> None:
    running = start_link(port)
    running.events.until("up")
    for _ in range(3):
        box.host.hang_up()
        assert running.events.until("back") == ["lost", "back"]
        assert running.exchange(port) == b"HELLO"
    running.close()
    assert tunnel_sockets() == []


def test_link_retries_after_the_agent_fails(box: Box, start_link: StartLink, monkeypatch: pytest.MonkeyPatch) -> None:
    run = box.service()
    job, aside = Path(run.paths.job), Path(run.paths.job + ".aside")
    lost = Events.lost

    def mend(events: Events, what: str) -> None:
        job.rmdir()
        aside.rename(job)
        lost(events, what)

    monkeypatch.setattr(Events, "lost", mend)
    monkeypatch.setattr(module, "PAUSE_AFTER_HOST_ERROR", 0.1)
    running = start_link(Target("TensorBoard", run.paths.id))
    running.events.until("running")
    job.rename(aside)
    job.mkdir()
    assert running.events.until("back")[-2:] == ["lost", "back"]
    assert running.failure is None


def test_link_of_a_run_that_cannot_be_read_for_a_while_stays_open(box: Box, start_link: StartLink) -> None:
    run = box.service()
    events, aside = Path(run.paths.events), Path(run.paths.events + ".aside")
    running = start_link(Target("TensorBoard", run.paths.id))
    running.events.until("running")
    events.rename(aside)
    events.mkdir()
    assert running.events.until("unknown") == ["unknown"]
    events.rmdir()
    aside.rename(events)
    assert running.events.until("running") == ["running"]
    assert running.failure is None


def test_link_reconnects_after_ssh_is_killed(start_link: StartLink, port: Target) -> None:
    before = child_pids()
    running = start_link(port)
    running.events.until("up")
    for pid in child_pids() - before:
        with suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    assert running.events.until("back") == ["lost", "back"]
    assert running.exchange(port) == b"HELLO"


@pytest.fixture
def proxy_to_host(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A connection to the host whose faults the test controls."""
    with FaultProxy(box.host.port) as proxy:
        config = tmp_path / "proxy_config"
        through = f"Port {proxy.port}\n    HostKeyAlias [127.0.0.1]:{box.host.port}"
        config.write_text(box.host.ssh_config.read_text().replace(f"Port {box.host.port}", through))
        monkeypatch.setenv("GPURUN_SSH", f"ssh -F {config}")
        yield proxy


def test_link_reconnects_when_an_unreachable_host_comes_back(
    proxy_to_host: FaultProxy, start_link: StartLink, port: Target
) -> None:
    running = start_link(port)
    running.events.until("up")
    proxy_to_host.refuse()
    proxy_to_host.reset()
    assert running.events.until("lost") == ["lost"]
    with pytest.raises(queue.Empty):
        running.events.queue.get(timeout=3)
    assert tunnel_sockets() == [], "so that the listener holds clients meanwhile"
    proxy_to_host.heal()
    assert running.events.until("back") == ["back"]
    assert running.exchange(port) == b"HELLO"


def test_silent_connection_is_noticed(
    proxy_to_host: FaultProxy, start_link: StartLink, port: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_timeouts(monkeypatch)
    running = start_link(port)
    running.events.until("up")
    proxy_to_host.blackhole()
    assert running.events.until("lost") == ["lost"]
    proxy_to_host.reset()
    proxy_to_host.heal()
    assert running.events.until("back") == ["back"]
    assert running.exchange(port) == b"HELLO"


def test_idle_connection_is_kept(start_link: StartLink, port: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_timeouts(monkeypatch)
    running = start_link(port)
    running.events.until("up")
    with pytest.raises(queue.Empty):
        running.events.queue.get(timeout=4)


def test_link_can_be_closed_while_the_host_is_unreachable(
    proxy_to_host: FaultProxy, start_link: StartLink, port: Target
) -> None:
    before = child_pids()
    running = start_link(port)
    running.events.until("up")
    proxy_to_host.refuse()
    proxy_to_host.reset()
    running.events.until("lost")
    running.close()
    assert running.failure is None
    assert tunnel_sockets() == []
    eventually(lambda: child_pids() <= before)


def test_link_can_be_closed_while_it_connects(proxy_to_host: FaultProxy, box: Box, port: Target) -> None:
    box.wire.ask("data", {"name": "warm"})
    before = child_pids()
    proxy_to_host.blackhole()
    running = RunningLink(box, port)
    eventually(lambda: child_pids() > before)
    running.link.end()
    proxy_to_host.heal()
    running.wait_until_ended()
    assert running.failure is None
    assert running.events.queue.empty()
    assert tunnel_sockets() == []


def test_unreachable_host_at_first_is_an_error_at_once(
    proxy_to_host: FaultProxy, start_link: StartLink, port: Target
) -> None:
    proxy_to_host.refuse()
    running = start_link(port)
    assert running.events.until("failed") == ["failed"]
    assert isinstance(running.failure, HostUnreachable)
    assert tunnel_sockets() == []


def test_removed_run_is_an_error_of_the_agent(start_link: StartLink) -> None:
    running = start_link(Target("TensorBoard", "tensorboard-0000"))
    running.events.until("failed")
    assert isinstance(running.failure, HostError)
    assert running.failure.code == "no_run"
    assert tunnel_sockets() == []


# A host that lets in only a user who can answer it (a second factor). An open master connection needs no login.
ASKING = """\
#!/bin/sh
for word; do
    case $word in -oControlPath=*) master=${word#*=} ;; esac
done
case " $* " in *" -oBatchMode=yes "*) [ -S "$master" ] || exit 255 ;; esac
exec ssh -F CONFIG "$@"
"""


@pytest.fixture
def asking(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A host that asks the user at each login; the user is there."""
    ssh = tmp_path / "asking_ssh"
    ssh.write_text(ASKING.replace("CONFIG", str(box.host.ssh_config)))
    ssh.chmod(0o755)
    monkeypatch.setenv("GPURUN_SSH", str(ssh))
    refusal = HostUnreachable("demo does not let us in", code="not_let_in")
    monkeypatch.setattr("gpurun.ssh.diagnose.explain", lambda *_: refusal)
    box.wire = replace(box.wire, connection=replace(box.wire.connection, interactive=True))
    return box


def test_host_that_asks_at_each_login_is_reached_over_the_shared_connection(
    asking: Box, start_link: StartLink, port: Target
) -> None:
    running = start_link(port)
    assert running.events.until("up") == ["up"]
    assert running.exchange(port) == b"HELLO"
    assert tunnel_sockets() == ["t-abcd.0"]
    running.close()
    assert tunnel_sockets() == []
    assert asking.wire.connection.is_up(), "other commands use it too"


def test_user_is_asked_once_when_the_shared_connection_breaks(asking: Box, start_link: StartLink, port: Target) -> None:
    running = start_link(port)
    running.events.until("up")
    asking.host.hang_up()
    assert running.events.until("back") == ["lost", "asks", "back"]
    assert running.exchange(port) == b"HELLO"


def test_link_gives_up_when_nobody_can_answer_the_host(asking: Box, start_link: StartLink, port: Target) -> None:
    asking.wire.ask("data", {"name": "warm"})
    asking.wire = asking.wire.quiet()
    running = start_link(port)
    assert running.events.until("up") == ["up"]
    asking.host.hang_up()
    assert running.events.until("failed") == ["lost", "failed"]
    assert isinstance(running.failure, HostUnreachable)
    assert running.failure.code == "not_let_in"
    assert tunnel_sockets() == []


@pytest.fixture
def host(request: pytest.FixtureRequest, home: Path) -> Iterator[EmbeddedHost]:
    """A host of the test's own, with the options of its parameter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, EmbeddedHost(Path(folder), **request.param) as host:
        yield host


@pytest.fixture
def own_box(host: EmbeddedHost, laptop: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Box:
    return box_of(host, stack, monkeypatch)


@pytest.mark.parametrize("host", [{"sockets": False}], indirect=True)
def test_host_that_forwards_only_to_ports_is_used_and_reported(own_box: Box, stack: ExitStack) -> None:
    run = own_box.service()
    target = Target("TensorBoard", run.paths.id)
    for _ in serve(listening(run)):
        running = RunningLink(own_box, target)
        stack.callback(running.close)
        assert running.events.until("up") == ["exposed", "up"]
        running.events.until("ready")
        assert running.exchange(target) == b"HELLO"
        own_box.host.hang_up()
        assert "exposed" not in running.events.until("back"), "it is reported once"
        assert running.exchange(target) == b"HELLO"


@pytest.mark.parametrize("host", [{"forwarding": False}], indirect=True)
def test_host_that_forwards_nothing_is_an_error(own_box: Box, stack: ExitStack, port: Target) -> None:
    running = RunningLink(own_box, port)
    stack.callback(running.close)
    running.events.until("failed")
    assert running.failure is not None
    assert "the SSH server of demo forwards nothing" in running.failure.what
    assert "AllowTcpForwarding" in running.failure.next_step
    assert tunnel_sockets() == []


@pytest.mark.parametrize("host", [{}], indirect=True)
def test_changed_host_key_is_never_retried(own_box: Box, stack: ExitStack, port: Target) -> None:
    running = RunningLink(own_box, port)
    stack.callback(running.close)
    running.events.until("up")
    known = own_box.host.ssh_config.parent / "known_hosts"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, EmbeddedHost(Path(folder)) as other:
        stranger = (other.ssh_config.parent / "known_hosts").read_text().split(" ", 1)[1]
    known.write_text(f"[127.0.0.1]:{own_box.host.port} {stranger}")
    own_box.host.hang_up()
    running.events.until("failed")
    assert isinstance(running.failure, HostUnreachable)
    assert running.failure.code == "key_changed"
    assert tunnel_sockets() == []
