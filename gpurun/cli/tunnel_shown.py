"""A tunnel on a terminal: where its services are, and one line for each change."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output, plan_shown
from gpurun.cli.screen import Screen

if TYPE_CHECKING:
    from gpurun.commands.submit import Report
    from gpurun.errors import GpurunError
    from gpurun.tunnel.plan import Found
    from gpurun.tunnel.registry import OpenDoor, Tunnel


STARTS_IN = 1.0  # seconds that a browser is waited for


class Starting(Screen):
    """A service that is prepared. Its own log is for `gpurun logs`."""

    def log(self, data: bytes) -> None:
        return


def report(host: str, say: Callable[[str], None], bar: Any) -> Report:
    """Where the submit of a service to `host` tells how far it is."""
    from gpurun.commands.submit import Plan, Report

    def listed(plan: Plan) -> None:
        if plan.files.count:
            plan_shown.tell(plan, host, yes=False)

    return Report(
        say=say,
        listed=listed,
        prepared=lambda answer: None,
        progress=lambda at, total: bar(at.bytes, 0, fraction=max(at.fraction, at.bytes / max(total, 1)), rate=at.rate),
    )


class Shown:
    """What `gpurun.tunnel` tells, shown."""

    def __init__(self, found: Found, *, open_browser: bool, as_json: bool, detached: bool) -> None:
        self._found, self._host = found, found.wire.host
        self._open_browser, self._as_json, self._detached = open_browser, as_json, detached
        self._lost = False

    def opened(self, tunnel: Tunnel, for_browser: Callable[[OpenDoor], str]) -> None:
        if self._as_json:
            output.json(tunnel)
        else:
            longest = max(len(door.name) for door in tunnel.doors)
            for door in tunnel.doors:
                name = output.styled(door.name.ljust(longest), output.BOLD, stream=sys.stdout)
                output.out(f"{name}  {output.styled(door.url, output.CYAN, stream=sys.stdout)}")
        self._tell_moved(tunnel)
        if not self._as_json:
            self._tell_how_to_end(tunnel)
        if self._open_browser:
            open_in_browser([for_browser(door) for door in tunnel.doors])

    def _tell_moved(self, tunnel: Tunnel) -> None:
        for way, door in zip(self._found.ways, tunnel.doors, strict=True):
            if door.port != way.port:
                output.note(f"port {way.port} is taken here, so {door.name} is at {door.port}")

    def _tell_how_to_end(self, tunnel: Tunnel) -> None:
        runs = dict.fromkeys(way.record["id"] for way in self._found.ways if way.record)
        if self._detached:
            output.next_steps((f"gpurun tunnel --close {tunnel.id}", "close it"))
        else:
            output.note(f"on {self._host}; Ctrl-C closes the tunnel, and what runs there goes on")
        output.next_steps(*((f"gpurun stop {run}", "end it there") for run in runs))

    def up(self) -> None:
        return

    def failed(self, error: GpurunError) -> None:
        output.print_error(error.what, error.place, error.next_step)

    def lost(self, what: str) -> None:
        if not self._lost:
            self._lost = True
            output.warn(f"lost contact with {self._host} ({what}); trying again")

    def back(self) -> None:
        self._lost = False
        output.note(f"back on {self._host}")

    def asks(self) -> None:
        output.say(f"{self._host} wants you to log in again:")

    def exposed(self) -> None:
        output.warn(
            f"the SSH server of {self._host} does not forward to Unix sockets (AllowStreamLocalForwarding), so a port of "
            "its loopback is used: other users of that host can reach TensorBoard, and Jupyter's login page"
        )

    def state(self, record: dict[str, Any]) -> None:
        if words.is_over(record):
            output.say(f"{record['id']} {describe.outcome(record)}")
            if record["state"] in (words.FAILED, words.LOST):
                output.next_steps((f"gpurun logs {record['id']}", "what it said"))

    def closed(self) -> None:
        output.note("closed")


def open_in_browser(urls: list[str]) -> None:
    """Show the pages, where there is a screen to show them on."""
    far = "SSH_CONNECTION" in os.environ
    screen = sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if not screen:
        where = " (this is an SSH session)" if far else ""
        output.note(f"there is no screen here to open a browser on{where}: open the address yourself")
        return
    # Some browsers are waited for by who starts them: one in a terminal, a script. The tunnel is to go on meanwhile.
    browser = threading.Thread(target=_start_browser, args=[urls], name="browser", daemon=True)
    browser.start()
    browser.join(STARTS_IN)  # what cannot be started is told while there is a terminal


def _start_browser(urls: list[str]) -> None:
    import webbrowser

    started = [webbrowser.open(url) for url in urls]
    if not all(started):
        output.note("no browser could be started: open the address yourself")
