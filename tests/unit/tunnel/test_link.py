"""The way to a host, over real ssh to the embedded one: made, cut, healed, closed, with nothing left behind."""

from __future__ import annotations

import os
import queue
import socket
import tempfile
import threading
import time
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
from tests.faultproxy import FaultProxy
from tests.unit.agent.run_folder import RunFolder
from tests.unit.tunnel.conftest import Box, box_of

WAIT = 30.0  # seconds


class Heard:
    """What a link tells, in its order."""

    def __init__(self) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        self.why = ""

    def up(self) -> None:
        self.events.put("up")

    def lost(self, what: str) -> None:
        self.why = what
        self.events.put("lost")

    def back(self) -> None:
        self.events.put("back")

    def exposed(self) -> None:
        self.events.put("exposed")

    def asks(self) -> None:
        self.events.put("asks")

    def state(self, record: dict[str, Any]) -> None:
        self.events.put(record["state"])
        if record["ready"]:
            self.events.put("ready")

    def until(self, event: str) -> list[str]:
        """What came, to this event."""
        came = []
        while event not in came:
            came.append(self.events.get(timeout=WAIT))
        return came


class Held:
    """A link that a thread holds."""

    def __init__(self, box: Box, *targets: Target) -> None:
        self.targets, self.heard = targets, Heard()
        self.link = Link(box.wire, "abcd", targets, self.heard)
        self.failure: GpurunError | None = None
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def _hold(self) -> None:
        try:
            self.link.hold()
        except GpurunError as error:
            self.failure = error
            self.heard.events.put("failed")

    def ask(self, target: Target, said: bytes = b"hello") -> bytes:
        """What comes back from what is behind a target."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT)
            client.connect(str(self.link.socket(target)))
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as file:
                return file.read()

    def over(self) -> None:
        """It has ended, or ends now."""
        self._thread.join(WAIT)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.link.end()
        self.over()


def serve(server: socket.socket) -> Iterator[socket.socket]:
    """Sends back what it is sent, in capitals."""

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
    """A port of the host that a program listens on."""
    for server in serve(socket.create_server(("127.0.0.1", 0))):
        yield Target("port", None, server.getsockname()[1])


Hold = Callable[..., Held]


@pytest.fixture
def hold(box: Box, stack: ExitStack) -> Hold:
    """Starts a link, and closes it at the end."""

    def hold(*targets: Target, box: Box = box) -> Held:
        held = Held(box, *targets)
        stack.callback(held.close)
        return held

    return hold


def programs() -> set[str]:
    """What this process has started: our ssh, and what the embedded host runs."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):
            found.update((task / "children").read_text().split())
    return found


def until(answer: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not answer():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def left() -> list[str]:
    """Sockets of tunnels."""
    return sorted(path.name for path in socket_folder().iterdir() if path.name.startswith("t-"))


def speak_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAY_EVERY", 0.5)
    monkeypatch.setattr(reconnect, "SILENT", 2.0)


def test_bytes_go_through_and_nothing_is_left(box: Box, port: Target) -> None:
    box.wire.ask("data", {"name": "warm"})  # the shared connection stands beside it
    files, ours = open_files(), programs()
    held = Held(box, port)
    assert held.heard.until("up") == ["up"]
    assert held.ask(port) == b"HELLO"
    large = os.urandom(5_000_000)
    assert held.ask(port, large) == large.upper()
    assert left() == ["t-abcd", "t-abcd.0"]
    held.close()
    assert held.failure is None
    assert left() == []
    until(lambda: programs() <= ours)
    until(lambda: open_files() <= files)
    assert box.wire.connection.is_up()


def test_only_the_user_can_reach_its_sockets(hold: Hold, port: Target) -> None:
    hold(port).heard.until("up")
    assert socket_folder().stat().st_mode & 0o777 == 0o700


def listening(run: RunFolder) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.join(sockets.make(run.paths, {"host": {"runtime": "bare"}}), words.TENSORBOARD))
    server.listen()
    return server


def test_a_service_is_told_ready_and_its_end_ends_the_link(box: Box, hold: Hold) -> None:
    run = box.service()
    target = Target("TensorBoard", run.paths.id)
    held = hold(target)
    assert held.heard.until("running") == ["up", "running"]
    for _ in serve(listening(run)):
        held.heard.until("ready")
        assert held.ask(target) == b"HELLO"
    run.end()
    assert held.heard.until("succeeded")
    held.over()
    assert held.failure is None
    entry = run_store.find(run.paths.id)
    assert entry is not None
    assert entry.state == words.SUCCEEDED, "the index of this laptop knows it"
    assert left() == []


def test_jupyters_token_comes_with_it(box: Box, hold: Hold) -> None:
    run = box.service(words.JUPYTER)
    Path(run.paths.token).parent.mkdir(parents=True)
    Path(run.paths.token).write_text("s3cret")
    held = hold(Target("Jupyter", run.paths.id), Target("port", None, 9))
    held.heard.until("up")
    assert held.link.tokens == {"Jupyter": "s3cret"}


def test_a_connection_that_is_cut_heals_and_leads_on(hold: Hold, box: Box, port: Target) -> None:
    held = hold(port)
    held.heard.until("up")
    for _ in range(3):
        box.host.hang_up()
        assert held.heard.until("back") == ["lost", "back"]
        assert held.ask(port) == b"HELLO"
    held.close()
    assert left() == []


def test_an_agent_that_fails_in_the_middle_is_asked_again_after_a_pause(
    box: Box, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = box.service()
    job, aside = Path(run.paths.job), Path(run.paths.job + ".aside")
    lost = Heard.lost

    def mended(heard: Heard, what: str) -> None:
        job.rmdir()
        aside.rename(job)
        lost(heard, what)

    monkeypatch.setattr(Heard, "lost", mended)
    monkeypatch.setattr(module, "HOST_FAILED", 0.1)
    held = hold(Target("TensorBoard", run.paths.id))
    held.heard.until("running")
    job.rename(aside)
    job.mkdir()
    assert held.heard.until("back")[-2:] == ["lost", "back"]
    assert held.failure is None


def test_link_of_a_run_that_cannot_be_read_for_a_while_stays_open(box: Box, hold: Hold) -> None:
    run = box.service()
    events, aside = Path(run.paths.events), Path(run.paths.events + ".aside")
    held = hold(Target("TensorBoard", run.paths.id))
    held.heard.until("running")
    events.rename(aside)
    events.mkdir()
    assert held.heard.until("unknown") == ["unknown"]
    events.rmdir()
    aside.rename(events)
    assert held.heard.until("running") == ["running"]
    assert held.failure is None


def test_an_ssh_that_is_killed_heals(hold: Hold, port: Target) -> None:
    before = programs()
    held = hold(port)
    held.heard.until("up")
    for pid in programs() - before:
        with suppress(ProcessLookupError):
            os.kill(int(pid), 9)
    assert held.heard.until("back") == ["lost", "back"]
    assert held.ask(port) == b"HELLO"


@pytest.fixture
def shaky(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A line to the host that does what a test says."""
    with FaultProxy(box.host.port) as proxy:
        config = tmp_path / "shaky_config"
        through = f"Port {proxy.port}\n    HostKeyAlias [127.0.0.1]:{box.host.port}"
        config.write_text(box.host.ssh_config.read_text().replace(f"Port {box.host.port}", through))
        monkeypatch.setenv("GPURUN_SSH", f"ssh -F {config}")
        yield proxy


def test_a_host_that_is_away_for_a_while_comes_back(shaky: FaultProxy, hold: Hold, port: Target) -> None:
    held = hold(port)
    held.heard.until("up")
    shaky.refuse()
    shaky.reset()
    assert held.heard.until("lost") == ["lost"]
    with pytest.raises(queue.Empty):
        held.heard.events.get(timeout=3)
    assert left() == [], "who comes meanwhile is held by the door, and not led astray"
    shaky.heal()
    assert held.heard.until("back") == ["back"]
    assert held.ask(port) == b"HELLO"


def test_a_line_that_swallows_everything_is_noticed(
    shaky: FaultProxy, hold: Hold, port: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak_often(monkeypatch)
    held = hold(port)
    held.heard.until("up")
    shaky.blackhole()
    assert held.heard.until("lost") == ["lost"]
    shaky.reset()
    shaky.heal()
    assert held.heard.until("back") == ["back"]
    assert held.ask(port) == b"HELLO"


def test_a_quiet_line_that_lives_is_left_alone(hold: Hold, port: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    speak_often(monkeypatch)
    held = hold(port)
    held.heard.until("up")
    with pytest.raises(queue.Empty):
        held.heard.events.get(timeout=4)


def test_it_can_be_closed_while_the_host_is_away(shaky: FaultProxy, hold: Hold, port: Target) -> None:
    before = programs()
    held = hold(port)
    held.heard.until("up")
    shaky.refuse()
    shaky.reset()
    held.heard.until("lost")
    held.close()
    assert held.failure is None
    assert left() == []
    until(lambda: programs() <= before)


def test_it_can_be_closed_while_it_connects(shaky: FaultProxy, box: Box, port: Target) -> None:
    box.wire.ask("data", {"name": "warm"})
    before = programs()
    shaky.blackhole()
    held = Held(box, port)
    until(lambda: programs() > before)
    held.link.end()
    shaky.heal()
    held.over()
    assert held.failure is None
    assert held.heard.events.empty()
    assert left() == []


def test_a_host_that_is_not_there_at_first_is_an_error_at_once(shaky: FaultProxy, hold: Hold, port: Target) -> None:
    shaky.refuse()
    held = hold(port)
    assert held.heard.until("failed") == ["failed"]
    assert isinstance(held.failure, HostUnreachable)
    assert left() == []


def test_a_run_that_is_gone_is_an_error_of_the_agent(hold: Hold) -> None:
    held = hold(Target("TensorBoard", "tensorboard-0000"))
    held.heard.until("failed")
    assert isinstance(held.failure, HostError)
    assert held.failure.code == "no_run"
    assert left() == []


# A host that lets in only who can be asked, as one with a second factor does; what a master carries needs no login.
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
    """Who asks is always there."""
    ssh = tmp_path / "asking_ssh"
    ssh.write_text(ASKING.replace("CONFIG", str(box.host.ssh_config)))
    ssh.chmod(0o755)
    monkeypatch.setenv("GPURUN_SSH", str(ssh))
    refusal = HostUnreachable("demo does not let us in", code="not_let_in")
    monkeypatch.setattr("gpurun.ssh.diagnose.explain", lambda *_: refusal)
    box.wire = replace(box.wire, connection=replace(box.wire.connection, interactive=True))
    return box


def test_a_host_that_asks_at_each_login_is_reached_over_the_shared_connection(
    asking: Box, hold: Hold, port: Target
) -> None:
    held = hold(port)
    assert held.heard.until("up") == ["up"]
    assert held.ask(port) == b"HELLO"
    assert left() == ["t-abcd.0"]
    held.close()
    assert left() == []
    assert asking.wire.connection.is_up(), "it is not ours alone"


def test_a_person_is_asked_once_when_that_connection_breaks(asking: Box, hold: Hold, port: Target) -> None:
    held = hold(port)
    held.heard.until("up")
    asking.host.hang_up()
    assert held.heard.until("back") == ["lost", "asks", "back"]
    assert held.ask(port) == b"HELLO"


def test_without_a_person_it_is_given_up(asking: Box, hold: Hold, port: Target) -> None:
    asking.wire.ask("data", {"name": "warm"})
    asking.wire = asking.wire.quiet()
    held = hold(port)
    assert held.heard.until("up") == ["up"]
    asking.host.hang_up()
    assert held.heard.until("failed") == ["lost", "failed"]
    assert isinstance(held.failure, HostUnreachable)
    assert held.failure.code == "not_let_in"
    assert left() == []


@pytest.fixture
def host(request: pytest.FixtureRequest, home: Path) -> Iterator[EmbeddedHost]:
    """A host of the test's own, made as its parameter says."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, EmbeddedHost(Path(folder), **request.param) as host:
        yield host


@pytest.fixture
def own_box(host: EmbeddedHost, laptop: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Box:
    return box_of(host, stack, monkeypatch)


@pytest.mark.parametrize("host", [{"sockets": False}], indirect=True)
def test_a_host_that_forwards_to_ports_alone_is_used_and_told(own_box: Box, stack: ExitStack) -> None:
    run = own_box.service()
    target = Target("TensorBoard", run.paths.id)
    for _ in serve(listening(run)):
        held = Held(own_box, target)
        stack.callback(held.close)
        assert held.heard.until("up") == ["exposed", "up"]
        held.heard.until("ready")
        assert held.ask(target) == b"HELLO"
        own_box.host.hang_up()
        assert "exposed" not in held.heard.until("back"), "once is enough"
        assert held.ask(target) == b"HELLO"


@pytest.mark.parametrize("host", [{"forwarding": False}], indirect=True)
def test_a_host_that_forwards_nothing_is_told(own_box: Box, stack: ExitStack, port: Target) -> None:
    held = Held(own_box, port)
    stack.callback(held.close)
    held.heard.until("failed")
    assert held.failure is not None
    assert "the SSH server of demo forwards nothing" in held.failure.what
    assert "AllowTcpForwarding" in held.failure.next_step
    assert left() == []


@pytest.mark.parametrize("host", [{}], indirect=True)
def test_a_key_that_changed_meanwhile_is_never_tried_in_a_loop(own_box: Box, stack: ExitStack, port: Target) -> None:
    held = Held(own_box, port)
    stack.callback(held.close)
    held.heard.until("up")
    known = own_box.host.ssh_config.parent / "known_hosts"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, EmbeddedHost(Path(folder)) as other:
        stranger = (other.ssh_config.parent / "known_hosts").read_text().split(" ", 1)[1]
    known.write_text(f"[127.0.0.1]:{own_box.host.port} {stranger}")
    own_box.host.hang_up()
    held.heard.until("failed")
    assert isinstance(held.failure, HostUnreachable)
    assert held.failure.code == "key_changed"
    assert left() == []
