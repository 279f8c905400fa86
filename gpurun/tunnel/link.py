"""Connect the listeners of this laptop with the services of a host, by one ssh that reconnects.

The tunnel has an SSH connection of its own, so that a large download does not slow other commands. The agent's verb `tunnel`
runs over it, and its beats show that the host answers. Forwards from Unix sockets of this laptop are added to the connection.
When it breaks, a new one is made, and the same sockets come back, so that the listeners need not change.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpurun.errors import MALFORMED, ContactLost, GpurunError, HostError, HostUnreachable
from gpurun.remote import reconnect
from gpurun.ssh.openssh import socket_folder
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import TunnelAnswer
    from gpurun.agent.schema.requests import TunnelListener, TunnelRequest
    from gpurun.agent.schema.run import RunRecord
    from gpurun.remote.wire import Stream, Wire

    TunnelStream = Stream[TunnelAnswer, RunRecord]
    from gpurun.ssh.openssh import Connection

PAUSE_AFTER_HOST_ERROR = 5.0  # seconds
SIGN_OF_LIFE_EVERY = 3.0  # seconds between two lines to the host
ANSWER_TIMEOUT = 30.0  # seconds
GREETING_TIMEOUT = 10.0  # seconds for the probe


@dataclass(frozen=True)
class Target:
    """The target of a listener: the service that a run is, a port of a run, or (without a run) a port of the host."""

    name: str  # unique in its tunnel
    run: str | None = None
    port: int | None = None

    @property
    def is_service(self) -> bool:
        return self.run is not None and self.port is None

    def request(self) -> TunnelListener:
        return {"name": self.name, "run": self.run, "service": self.is_service, "port": self.port}


class LinkObserver(Protocol):
    """Gets called when something happens to a link, in the thread of `Link.run`."""

    def up(self) -> None:
        """The link is up for the first time."""

    def lost(self, what: str) -> None: ...
    def back(self) -> None: ...
    def state(self, record: RunRecord) -> None:
        """A run has changed; `record["ready"]` is true when its service answers."""

    def exposed(self) -> None:
        """The host's sshd forwards to no sockets, so ports of its loopback are used, which its other users can reach."""

    def asks(self) -> None:
        """The user must log in again."""


class Link:
    """The way to the host, kept open until `end`, or until all runs behind it have ended."""

    def __init__(self, wire: Wire, tunnel: str, targets: Sequence[Target], observer: LinkObserver) -> None:
        self.wire, self.tunnel, self.targets, self.observer = wire, tunnel, targets, observer
        self.tokens: dict[str, str] = {}  # by the name of the target
        self.last_traffic: Callable[[], float] = lambda: 0.0  # when bytes last came through a listener
        self._uses_loopback = False  # the host's sshd forwards to ports, not to sockets
        self._forwards_work = False  # as the probe has shown
        self._owns_connection = True  # false when the host needs the user at each login
        self._retry_within = reconnect.connect_within(0.0)  # seconds for a new try, from what the first one took
        self._ended = threading.Event()
        self._stream: TunnelStream | None = None
        self._forwards: list[tuple[Connection, Path, str]] = []

    def socket(self, target: Target) -> Path:
        """Return the Unix socket of this laptop that leads to `target` while the link is up."""
        return socket_folder() / f"t-{self.tunnel}.{self.targets.index(target)}"

    def run(self) -> None:
        """Return after `end`, or when every run has ended. Raises what a retry cannot mend: a refused login, a changed key."""
        is_first = True
        while not self._ended.is_set():
            stream = self._connect_first() if is_first else self._reconnect()
            if stream is None:
                return
            try:
                if self._ended.is_set():  # `end` was called when there was no stream to cut yet
                    return
                self.observer.up() if is_first else self.observer.back()
                is_first = False
                if self._read_frames(stream):
                    return
            except HostUnreachable as error:
                if not self._ended.is_set():
                    self.observer.lost(error.what)
            except HostError as error:
                if error.code == MALFORMED:  # a repeated request would get the same answer
                    raise
                # Its disk may be full. The services behind the tunnel may still work, so try again after a pause.
                self.observer.lost(error.what)
                self._ended.wait(PAUSE_AFTER_HOST_ERROR)
            finally:
                self._close_stream(stream)

    def end(self) -> None:
        """Close the tunnel. Call it from any thread, but not from a signal handler, because it takes locks."""
        self._ended.set()
        if self._stream is not None:
            self._stream.cut()

    # Connect.

    def _connect_first(self) -> TunnelStream:
        started = time.monotonic()
        try:
            stream = self._connect(self.wire.quiet(), None)
        except HostUnreachable as error:
            if not reconnect.for_a_person(error):
                raise
            # The host lets in only a user who can answer it. The connection that all commands share is already let in.
            self._owns_connection = False
            stream = self._connect(self.wire, None)
        self._retry_within = reconnect.connect_within(time.monotonic() - started)
        return stream

    def _reconnect(self) -> TunnelStream | None:
        """Try until a connection with all its forwards is up; return None when the tunnel was closed meanwhile."""
        if not self._owns_connection:
            self.wire.let_go()

        def asks() -> None:
            self._owns_connection = False
            self.observer.asks()

        return reconnect.reach_again(
            self.wire, self._connect, within=self._retry_within, asks=asks, wait=self._ended.wait
        )

    def _connect(self, wire: Wire, within: float | None) -> TunnelStream:
        if self._owns_connection:
            path = socket_folder() / f"t-{self.tunnel}"
            path.unlink(missing_ok=True)
            timeout = wire.connection.connect_timeout if within is None else reconnect.connect_timeout(within)
            wire = replace(wire, connection=replace(wire.connection, own_socket=path, connect_timeout=timeout))
        stream = None
        try:
            stream = wire.stream("tunnel", self._request(), timeout=ANSWER_TIMEOUT, within=within, listens=True)
            self._add_forwards(wire, stream)
            forwards_work = self._forwards_work or self._check_probe(wire, stream)
        except BaseException:
            self._close_stream(stream)
            raise
        if not forwards_work:
            self._close_stream(stream)
            self._uses_loopback = True
            self.observer.exposed()
            return self._connect(wire, within)
        self._forwards_work, self._stream = True, stream
        return stream

    def _request(self) -> TunnelRequest:
        listeners = [target.request() for target in self.targets]
        return {"tunnel": self.tunnel, "listeners": listeners, "loopback": self._uses_loopback}

    def _add_forwards(self, wire: Wire, stream: TunnelStream) -> None:
        for target, listener in zip(self.targets, stream.answer["listeners"], strict=True):
            remote = listener["socket"] or f"127.0.0.1:{listener['port']}"
            self._forwards.append((wire.connection, self.socket(target), remote))
            if not wire.connection.forward(self.socket(target), remote):
                what, next_step = f"ssh could not forward to {remote}", f"gpurun host check {wire.host}"
                # A connection that broke meanwhile forwards nothing either.
                kind = GpurunError if wire.connection.is_up() else ContactLost
                raise kind(what, next_step, where=wire.host)
            if listener["token"]:
                self.tokens[target.name] = listener["token"]

    def _check_probe(self, wire: Wire, stream: TunnelStream) -> bool:
        """Return whether the host's sshd forwards to the probe. Raises GpurunError when it forwards nothing."""
        probe = stream.answer["probe"]
        local = socket_folder() / f"t-{self.tunnel}.p"
        remote = probe if isinstance(probe, str) else f"127.0.0.1:{probe}"
        works = wire.connection.forward(local, remote) and _receives_greeting(local)
        local.unlink(missing_ok=True)
        if not works and not wire.connection.is_up():
            raise ContactLost("the connection broke off", "try again", where=wire.host)
        if not works and isinstance(probe, int):
            raise GpurunError(
                f"the SSH server of {wire.host} forwards nothing",
                "ask its administrator to set AllowTcpForwarding yes in sshd_config",
                where=wire.host,
            )
        return works

    # While the connection is up.

    def _read_frames(self, stream: TunnelStream) -> bool:
        """Return True when every run has ended. Raises ContactLost when the connection breaks."""
        last_line = 0.0

        def speak(woken: bool) -> None:
            nonlocal last_line
            if woken or time.monotonic() > last_line + SIGN_OF_LIFE_EVERY:
                last_line = time.monotonic()
                stream.say()  # the host answers with a beat at once

        with reconnect.Vigil(stream, traffic=self.last_traffic, speak=speak):
            for frame in stream:
                if frame.state is not None:
                    run_store.update([frame.state], self.wire.host)
                    self.observer.state(frame.state)
                if frame.end is not None:  # the end of each run has come as its state
                    return True
        return False

    def _close_stream(self, stream: TunnelStream | None) -> None:
        if stream is not None:
            stream.close()
        self._stream = None
        for connection, local, remote in self._forwards:
            if connection.own_socket is None:
                connection.unforward(local, remote)
            local.unlink(missing_ok=True)
        self._forwards.clear()
        if self._owns_connection:
            (socket_folder() / f"t-{self.tunnel}").unlink(missing_ok=True)


def _receives_greeting(local: Path) -> bool:
    """Return whether what is behind this socket greets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.settimeout(GREETING_TIMEOUT)
        probe.connect(str(local))
        return bool(probe.recv(16))
    return False
