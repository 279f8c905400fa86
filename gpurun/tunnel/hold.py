"""Keep a tunnel session open: its doors, its link, its entry in the registry; in the foreground or detached."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from gpurun.agent import vocabulary as words
from gpurun.errors import GpurunError
from gpurun.tunnel import registry
from gpurun.tunnel.door import Doors
from gpurun.tunnel.link import Link, Listener
from gpurun.tunnel.passage import Door
from gpurun.tunnel.registry import Entry, OpenDoor, Tunnel

if TYPE_CHECKING:
    from gpurun.tunnel.plan import Found, Way

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


class Shown(Listener, Protocol):
    """Who tells the user."""

    def failed(self, error: GpurunError) -> None:
        """The process that was to keep the tunnel open could not open it."""

    def opened(self, tunnel: Tunnel, for_browser: Callable[[OpenDoor], str]) -> None:
        """Every door is open and every service answers. A browser's argv may hold `for_browser(door)`, never a door's url."""


def hold(found: Found, shown: Shown, *, detach: bool) -> int:
    """Keep a tunnel open until it is closed or all behind it has ended; the exit code.

    Detached, this process returns once everything answers, and another one stays.
    """
    if detach:
        return _detached(found, shown)
    tunnel = _Open(found, shown, detached=False)
    previous = _end_at_signals(tunnel)
    try:
        return tunnel.hold()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        tunnel.close()


def _end_at_signals(tunnel: _Open) -> dict[signal.Signals, Any]:
    """Close it at SIGTERM and when the terminal is closed (not under nohup); the handlers that were there."""

    def end(*_: object) -> None:
        # A thread of its own: `end` takes locks that the interrupted main thread may hold at this moment.
        threading.Thread(target=tunnel.link.end, daemon=True).start()

    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]
    return {number: signal.signal(number, end) for number in numbers}


def _detached(found: Found, shown: Shown) -> int:
    """The child has our terminal until it is connected: only so can ssh ask there."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os._exit(_stay(found, shown, tell))
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        ready = pipe.read(1)
    if ready:
        return 0
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) or words.EXIT_FAILED


def _stay(found: Found, shown: Shown, tell: int) -> int:
    tunnel: _Open | None = None
    try:
        tunnel = _Open(found, shown, detached=True, tell=tell)
        _end_at_signals(tunnel)
        return tunnel.hold()
    except KeyboardInterrupt:  # the parent got it too, and speaks for both
        return words.EXIT_INTERRUPTED
    except GpurunError as error:
        if tunnel is not None and tunnel.left:
            return error.exit_code  # nobody looks any more; the registry told while it could
        shown.failed(error)
        return error.exit_code
    finally:
        if tunnel is not None:
            tunnel.close()


class _Open:
    """The parts of a tunnel, and what happens to them told on to `shown` and the registry."""

    def __init__(self, found: Found, shown: Shown, *, detached: bool, tell: int | None = None) -> None:
        self.found, self.shown = found, shown
        self.id = "".join(secrets.choice(ALPHABET) for _ in range(4))
        self.link = Link(found.wire, self.id, [way.target for way in found.ways], self)
        self.doors = Doors()
        self.link.traffic = self.doors.traffic
        self.entry = Entry(Tunnel(self.id, found.wire.host, detached=detached))
        self.ports = {way.target.name: self.doors.open(self._door(way)) for way in found.ways}
        self.left = False  # the terminal, for good
        self._tell = tell
        self._waits = {way.target.run for way in found.ways if way.target.run and way.target.port is None}
        self._is_open = False
        self._failed = False

    def _door(self, way: Way) -> Door:
        host = self.found.wire.host
        return Door(
            name=way.target.name, port=way.port, upstream=self.link.socket(way.target), host=host, what=way.what
        )

    def hold(self) -> int:
        self.link.hold()
        return words.EXIT_FAILED if self._failed else 0

    def close(self) -> None:
        self.doors.close()
        self.entry.close()

    # What the link tells.

    def up(self) -> None:
        self._open_if_ready()

    def lost(self, what: str) -> None:
        self.entry.tell(state=registry.HEALING)
        self.shown.lost(what)

    def back(self) -> None:
        self.entry.tell(state=registry.UP)
        self.shown.back()

    def asks(self) -> None:
        self.entry.tell(state=registry.LOGIN)
        self.shown.asks()

    def exposed(self) -> None:
        self.shown.exposed()

    def state(self, record: dict[str, Any]) -> None:
        self.shown.state(record)
        if record.get("ready"):
            self._waits.discard(record["id"])
        if words.is_over(record):
            self._waits.discard(record["id"])
            self._failed = self._failed or record["state"] in (words.FAILED, words.LOST)
            for way in self.found.ways:
                if way.target.run == record["id"]:
                    self.doors.close_one(way.target.name)
        self._open_if_ready()

    def _open_if_ready(self) -> None:
        if self._is_open or self._waits:
            return
        self._is_open = True
        doors = tuple(
            OpenDoor(way.target.name, self._url(way), self.ports[way.target.name], way.target.run)
            for way in self.found.ways
        )
        self.entry.tell(state=registry.UP, doors=doors)
        self.shown.opened(self.entry.tunnel, self._for_browser)
        if self._tell is not None:
            self._leave(self._tell)

    def _url(self, way: Way) -> str:
        token = self.link.tokens.get(way.target.name)
        path = f"lab?token={token}" if token else ""
        return f"http://127.0.0.1:{self.ports[way.target.name]}/{path}"

    def _for_browser(self, door: OpenDoor) -> str:
        origin, _, page = door.url.rpartition("/")
        return origin + self.doors.once.address(page) if page else door.url

    def _leave(self, tell: int) -> None:
        """Let go of the terminal, so that its end is not ours, and say that all is well."""
        self.left = True
        self.link.wire = self.link.wire.quiet()  # an ssh that finds no terminal sends empty passwords
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        os.close(nothing)
        os.write(tell, b"1")
        os.close(tell)
