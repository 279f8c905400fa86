"""What stands between the doors of this laptop and the services of a host: one ssh, and its healing.

The connection is a tunnel's own, so that a large download stands in nobody's way. Over it runs the agent's `attend`, whose
beats tell that the host is there; forwardings from Unix sockets of this laptop are added to it. When it breaks, it is made
again, and the same sockets come back, to which the doors lead all the while.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpurun.errors import MALFORMED, ContactLost, GpurunError, HostError, HostUnreachable
from gpurun.remote import reconnect
from gpurun.ssh.openssh import socket_folder
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.remote.wire import Stream, Wire
    from gpurun.ssh.openssh import Connection

HOST_FAILED = 5.0  # seconds until a host whose agent failed is asked again
SAY_EVERY = 3.0  # seconds between two words to the host
FIRST_ANSWER = 30.0  # seconds
GREETING_IN = 10.0  # seconds for the probe


@dataclass(frozen=True)
class Target:
    """Where a door leads: to the service that a run is, to a port of a run, or (without a run) to a port of the host."""

    name: str  # unique in its tunnel
    run: str | None = None
    port: int | None = None

    def asked(self) -> dict[str, Any]:
        service = self.run is not None and self.port is None
        return {"name": self.name, "run": self.run, "service": service, "port": self.port}


class Listener(Protocol):
    """What happens to a tunnel. Called in the thread of `Link.hold`."""

    def up(self) -> None:
        """For the first time."""

    def lost(self, what: str) -> None: ...
    def back(self) -> None: ...
    def state(self, record: dict[str, Any]) -> None:
        """A run has changed; `record["ready"]` says that its service answers."""

    def exposed(self) -> None:
        """The host's sshd forwards to no socket: ports of its loopback stand in, which its other users can reach."""

    def asks(self) -> None:
        """A person must log in again."""


class Link:
    """Holds the way open until `end`, or until all runs behind it have ended."""

    def __init__(self, wire: Wire, tunnel: str, targets: Sequence[Target], listener: Listener) -> None:
        self.wire, self.tunnel, self.targets, self.listener = wire, tunnel, targets, listener
        self.tokens: dict[str, str] = {}  # by the name of the target
        self.traffic: Callable[[], float] = lambda: 0.0  # when bytes last came through a door
        self._loopback = self._proven = False  # how the host's sshd forwards, and whether that was seen
        self._own = True  # until the host turns out to want a person at each login
        self._patience = reconnect.connect_within(0.0)  # seconds for a new try, from what the first took
        self._ended = threading.Event()
        self._stream: Stream | None = None
        self._forwards: list[tuple[Connection, Path, str]] = []

    def socket(self, target: Target) -> Path:
        """The Unix socket of this laptop that leads to `target` while the link is up."""
        return socket_folder() / f"t-{self.tunnel}.{self.targets.index(target)}"

    def hold(self) -> None:
        """Returns after `end`, or when every run has ended. Raises what cannot heal: a refused login, a changed key."""
        first = True
        while not self._ended.is_set():
            stream = self._first() if first else self._again()
            if stream is None:
                return
            try:
                if self._ended.is_set():  # meanwhile, when there was nothing to cut yet
                    return
                self.listener.up() if first else self.listener.back()
                first = False
                if self._listen(stream):
                    return
            except HostUnreachable as error:
                if not self._ended.is_set():
                    self.listener.lost(error.what)
            except HostError as error:
                if error.code == MALFORMED:  # asked again, it would answer the same
                    raise
                # Its disk is full, say. The services behind the tunnel may be well; but it is not asked without a pause.
                self.listener.lost(error.what)
                self._ended.wait(HOST_FAILED)
            finally:
                self._shut(stream)

    def end(self) -> None:
        """Close the tunnel, from any thread; from no signal handler, for it takes locks."""
        self._ended.set()
        if self._stream is not None:
            self._stream.cut()

    # Reaching the host.

    def _first(self) -> Stream:
        began = time.monotonic()
        try:
            stream = self._connect(self.wire.quiet(), None)
        except HostUnreachable as error:
            if not reconnect.for_a_person(error):
                raise
            # It lets in only who can be asked. The connection that all verbs share has been let in.
            self._own = False
            stream = self._connect(self.wire, None)
        self._patience = reconnect.connect_within(time.monotonic() - began)
        return stream

    def _again(self) -> Stream | None:
        """A connection with all its forwardings, tried until it stands; None when the tunnel was closed meanwhile."""
        if not self._own:
            self.wire.let_go()

        def asks() -> None:
            self._own = False
            self.listener.asks()

        return reconnect.reach_again(self.wire, self._connect, within=self._patience, asks=asks, wait=self._ended.wait)

    def _connect(self, wire: Wire, within: float | None) -> Stream:
        if self._own:
            path = socket_folder() / f"t-{self.tunnel}"
            path.unlink(missing_ok=True)
            timeout = wire.connection.connect_timeout if within is None else reconnect.connect_timeout(within)
            wire = replace(wire, connection=replace(wire.connection, own_socket=path, connect_timeout=timeout))
        stream = None
        try:
            stream = wire.stream("attend", self._request, timeout=FIRST_ANSWER, within=within, listens=True)
            self._forward(wire, stream)
            passes = self._proven or self._greeted(wire, stream)
        except BaseException:
            self._shut(stream)
            raise
        if not passes:
            self._shut(stream)
            self._loopback = True
            self.listener.exposed()
            return self._connect(wire, within)
        self._proven, self._stream = True, stream
        return stream

    def _request(self) -> dict[str, Any]:
        doors = [target.asked() for target in self.targets]
        return {"tunnel": self.tunnel, "doors": doors, "loopback": self._loopback}

    def _forward(self, wire: Wire, stream: Stream) -> None:
        for target, door in zip(self.targets, stream.answer["doors"], strict=True):
            there = door["socket"] or f"127.0.0.1:{door['port']}"
            self._forwards.append((wire.connection, self.socket(target), there))
            if not wire.connection.forward(self.socket(target), there):
                what, next_step = f"ssh would not forward to {there}", f"gpurun host check {wire.host} looks closer"
                # A connection that broke meanwhile forwards nothing either.
                kind = GpurunError if wire.connection.is_up() else ContactLost
                raise kind(what, next_step, where=wire.host)
            if door["token"]:
                self.tokens[target.name] = door["token"]

    def _greeted(self, wire: Wire, stream: Stream) -> bool:
        """Whether the host's sshd lets us through to where it is asked to. Raises GpurunError when it lets us nowhere."""
        probe = stream.answer["probe"]
        local = socket_folder() / f"t-{self.tunnel}.p"
        there = probe if isinstance(probe, str) else f"127.0.0.1:{probe}"
        passes = wire.connection.forward(local, there) and _hears(local)
        local.unlink(missing_ok=True)
        if not passes and not wire.connection.is_up():
            raise ContactLost("the connection broke off", "try again", where=wire.host)
        if not passes and isinstance(probe, int):
            raise GpurunError(
                f"the SSH server of {wire.host} forwards nothing",
                "its administrator can allow it: AllowTcpForwarding yes in sshd_config",
                where=wire.host,
            )
        return passes

    # While it stands.

    def _listen(self, stream: Stream) -> bool:
        """True when every run has ended. Raises ContactLost when the connection breaks."""
        said = 0.0

        def speak(woken: bool) -> None:
            nonlocal said
            if woken or time.monotonic() > said + SAY_EVERY:
                said = time.monotonic()
                stream.say()  # the host beats at once

        with reconnect.Vigil(stream, traffic=self.traffic, speak=speak):
            for frame in stream:
                if frame.state is not None:
                    run_store.update([frame.state], self.wire.host)
                    self.listener.state(frame.state)
                if frame.end is not None:  # each run's own has come as its state
                    return True
        return False

    def _shut(self, stream: Stream | None) -> None:
        if stream is not None:
            stream.close()
        self._stream = None
        for connection, local, there in self._forwards:
            if connection.own_socket is None:
                connection.unforward(local, there)
            local.unlink(missing_ok=True)
        self._forwards.clear()
        if self._own:
            (socket_folder() / f"t-{self.tunnel}").unlink(missing_ok=True)


def _hears(local: Path) -> bool:
    """Whether somebody greets behind this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.settimeout(GREETING_IN)
        probe.connect(str(local))
        return bool(probe.recv(16))
    return False
