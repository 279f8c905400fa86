"""Show a tunnel on the terminal: the URLs of its services, and one line for each change."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output, plan_shown
from gpurun.cli.screen import Screen

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.errors import GpurunError
    from gpurun.tunnel.plan import Routes
    from gpurun.tunnel.registry import OpenListener, Tunnel
    from gpurun.tunnel.services import Planned


BROWSER_TIMEOUT = 1.0  # seconds to wait for the browser to start


class Starting(Screen):
    """Shows the preparation of a service. `gpurun logs` shows its log."""

    def log(self, data: bytes) -> None:
        return


def tell_planned(event: Planned, host: str) -> None:
    """Show what the submit of a service will send, and ask before it is very much."""
    if event.plan.files.count:
        plan_shown.tell(event.plan, host, yes=False)


class Shown:
    """Shows what happens to a tunnel session."""

    def __init__(self, routes: Routes, *, open_browser: bool, as_json: bool, detached: bool) -> None:
        self._routes, self._host = routes.routes, routes.wire.host
        self._open_browser, self._as_json, self._detached = open_browser, as_json, detached
        self._lost = False

    def opened(self, tunnel: Tunnel, url_for_browser: Callable[[OpenListener], str]) -> None:
        if self._as_json:
            output.json(tunnel)
        else:
            longest = max(len(listener.name) for listener in tunnel.listeners)
            for listener in tunnel.listeners:
                name = output.styled(listener.name.ljust(longest), output.BOLD, stream=sys.stdout)
                output.out(f"{name}  {output.styled(listener.url, output.CYAN, stream=sys.stdout)}")
        self._show_moved_ports(tunnel)
        if not self._as_json:
            self._show_how_to_close(tunnel)
        if self._open_browser:
            open_in_browser([url_for_browser(listener) for listener in tunnel.listeners])

    def _show_moved_ports(self, tunnel: Tunnel) -> None:
        for route, listener in zip(self._routes, tunnel.listeners, strict=True):
            if listener.port != route.port:
                output.note(f"port {route.port} is in use on this laptop, so {listener.name} is at {listener.port}")

    def _show_how_to_close(self, tunnel: Tunnel) -> None:
        runs = dict.fromkeys(route.record["id"] for route in self._routes if route.record)
        if self._detached:
            output.next_steps((f"gpurun tunnel --close {tunnel.id}", "close it"))
        else:
            output.note(f"on {self._host}; Ctrl-C closes the tunnel, and the runs on the host continue")
        output.next_steps(*((f"gpurun stop {run}", "end it there") for run in runs))

    def up(self) -> None:
        return

    def failed(self, error: GpurunError) -> None:
        output.print_error(error.what, error.place, error.next_step)

    def lost(self, what: str) -> None:
        if not self._lost:
            self._lost = True
            output.warn(f"lost contact with {self._host} ({what}); reconnecting")

    def back(self) -> None:
        self._lost = False
        output.note(f"reconnected to {self._host}")

    def asks(self) -> None:
        output.say(f"{self._host} asks you to log in again:")

    def exposed(self) -> None:
        output.warn(
            f"the SSH server of {self._host} does not forward to Unix sockets (AllowStreamLocalForwarding), so gpurun "
            "uses a port of its loopback: other users of that host can reach TensorBoard, and Jupyter's login page"
        )

    def state(self, record: RunRecord) -> None:
        if words.is_over(record):
            output.say(f"{record['id']} {describe.outcome(record)}")
            if record["state"] in (words.FAILED, words.LOST):
                output.next_steps((f"gpurun logs {record['id']}", "what it printed"))

    def closed(self) -> None:
        output.note("closed")


def open_in_browser(urls: list[str]) -> None:
    """Open the pages in the user's browser; print a note where there is no screen."""
    is_remote = "SSH_CONNECTION" in os.environ
    screen = sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if not screen:
        where = " (this is an SSH session)" if is_remote else ""
        output.note(f"there is no screen here to open a browser on{where}: open the URL yourself")
        return
    # `webbrowser` waits for some browsers (a text browser, a script). The tunnel must not wait for them.
    browser = threading.Thread(target=_start_browser, args=[urls], name="browser", daemon=True)
    browser.start()
    browser.join(BROWSER_TIMEOUT)  # so that a failure is printed while there is a terminal


def _start_browser(urls: list[str]) -> None:
    import webbrowser

    started = [webbrowser.open(url) for url in urls]
    if not all(started):
        output.note("no browser could be started: open the URL yourself")
