"""Run a tunnel session: its listeners, its link to the host, its entry in the registry; in the foreground or detached."""

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
from gpurun.tunnel.link import Link, LinkObserver
from gpurun.tunnel.listener import Listeners
from gpurun.tunnel.proxy_connection import Listener
from gpurun.tunnel.registry import Entry, OpenListener, Tunnel

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.tunnel.plan import Route, Routes

ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


class SessionObserver(LinkObserver, Protocol):
    """Shows the user what happens to a session."""

    def failed(self, error: GpurunError) -> None:
        """The detached process could not open the tunnel."""

    def opened(self, tunnel: Tunnel, url_for_browser: Callable[[OpenListener], str]) -> None:
        """Every listener is open and every service answers.

        The arguments of a browser may hold `url_for_browser(listener)`, never the listener's own URL.
        """


def run(routes: Routes, observer: SessionObserver, *, detach: bool) -> int:
    """Keep a tunnel open until it is closed or every run behind it has ended. Return the exit code.

    With `detach`, return once everything answers; another process keeps the tunnel open.
    """
    if detach:
        return _run_detached(routes, observer)
    session = _Session(routes, observer, detached=False)
    previous = _close_on_signals(session)
    try:
        return session.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        session.close()


def _close_on_signals(session: _Session) -> dict[signal.Signals, Any]:
    """Close the session at SIGTERM and SIGHUP (unless nohup ignores it). Return the previous handlers."""

    def end(*_: object) -> None:
        # In a thread of its own: `end` takes locks that the interrupted main thread may hold.
        threading.Thread(target=session.link.end, daemon=True).start()

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    return {number: signal.signal(number, end) for number in numbers}


def _run_detached(routes: Routes, observer: SessionObserver) -> int:
    """Fork the process that stays. It keeps our terminal until it is connected, so that ssh can ask there."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os._exit(_run_child(routes, observer, write_end))
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        is_open = pipe.read(1)
    if is_open:
        return 0
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) or words.EXIT_FAILED


def _run_child(routes: Routes, observer: SessionObserver, parent: int) -> int:
    session: _Session | None = None
    try:
        session = _Session(routes, observer, detached=True, parent=parent)
        _close_on_signals(session)
        return session.run()
    except KeyboardInterrupt:  # the parent process gets it too and prints the message
        return words.EXIT_INTERRUPTED
    except GpurunError as error:
        if session is not None and session.has_left_terminal:
            return error.exit_code  # nobody would see the message; the registry showed the state
        observer.failed(error)
        return error.exit_code
    finally:
        if session is not None:
            session.close()


class _Session:
    """The parts of a tunnel; passes what happens to them on to `observer` and the registry.

    `parent`: the write end of the pipe by which a detached session reports that it is open.
    """

    def __init__(self, routes: Routes, observer: SessionObserver, *, detached: bool, parent: int | None = None) -> None:
        self.routes, self.observer = routes, observer
        self.id = "".join(secrets.choice(ID_ALPHABET) for _ in range(4))
        self.link = Link(routes.wire, self.id, [route.target for route in routes.routes], self)
        self.listeners = Listeners()
        self.link.last_traffic = self.listeners.last_traffic
        self.entry = Entry(Tunnel(self.id, routes.wire.host, detached=detached))
        self.ports = {route.target.name: self.listeners.open(self._listener(route)) for route in routes.routes}
        self.has_left_terminal = False
        self._parent = parent
        self._not_ready = {route.target.run for route in routes.routes if route.target.is_service}
        self._is_open = False
        self._failed = False

    def _listener(self, route: Route) -> Listener:
        return Listener(
            name=route.target.name,
            port=route.port,
            upstream=self.link.socket(route.target),
            host=self.routes.wire.host,
            what=route.what,
        )

    def run(self) -> int:
        self.link.run()
        return words.EXIT_FAILED if self._failed else 0

    def close(self) -> None:
        self.listeners.close()
        self.entry.close()

    # What the link reports.

    def up(self) -> None:
        self._open_if_ready()

    def lost(self, what: str) -> None:
        self.entry.update(state=registry.RECONNECTING)
        self.observer.lost(what)

    def back(self) -> None:
        self.entry.update(state=registry.UP)
        self.observer.back()

    def asks(self) -> None:
        self.entry.update(state=registry.LOGIN_NEEDED)
        self.observer.asks()

    def exposed(self) -> None:
        self.observer.exposed()

    def state(self, record: RunRecord) -> None:
        self.observer.state(record)
        if record.get("ready"):
            self._not_ready.discard(record["id"])
        if words.is_over(record):
            self._not_ready.discard(record["id"])
            self._failed = self._failed or record["state"] in (words.FAILED, words.LOST)
            for route in self.routes.routes:
                if route.target.run == record["id"]:
                    self.listeners.close_one(route.target.name)
        self._open_if_ready()

    def _open_if_ready(self) -> None:
        if self._is_open or self._not_ready:
            return
        self._is_open = True
        listeners = tuple(
            OpenListener(route.target.name, self._url(route), self.ports[route.target.name], route.target.run)
            for route in self.routes.routes
        )
        self.entry.update(state=registry.UP, listeners=listeners)
        self.observer.opened(self.entry.tunnel, self._url_for_browser)
        if self._parent is not None:
            self._leave_terminal(self._parent)

    def _url(self, route: Route) -> str:
        token = self.link.tokens.get(route.target.name)
        path = f"lab?token={token}" if token else ""
        return f"http://127.0.0.1:{self.ports[route.target.name]}/{path}"

    def _url_for_browser(self, listener: OpenListener) -> str:
        origin, _, page = listener.url.rpartition("/")
        return origin + self.listeners.one_time_urls.create(page) if page else listener.url

    def _leave_terminal(self, parent: int) -> None:
        """Detach from the terminal, so that its end does not end this process, and report to `parent`."""
        self.has_left_terminal = True
        self.link.wire = self.link.wire.quiet()  # an ssh without a terminal sends empty passwords
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        os.write(parent, b"1")
        os.close(parent)
