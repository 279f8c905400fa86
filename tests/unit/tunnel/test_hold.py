"""A tunnel's process, in the background."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gpurun.config.hosts import HostProfile
from gpurun.remote import wire
from gpurun.tunnel import hold
from gpurun.tunnel.link import Target
from gpurun.tunnel.plan import Found, Way
from gpurun.tunnel.registry import OpenDoor
from tests.unit.tunnel.conftest import BOARD


def test_who_has_left_the_terminal_asks_nobody_there(laptop: Path) -> None:
    """Without a terminal ssh would send three empty passwords, each a failed login."""
    found = Found(
        wire.connect(HostProfile("box"), interactive=True), (Way(Target("port 9", None, 9), 23456, "port 9 of box"),)
    )
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        shown: Any = None
        tunnel = hold._Open(found, shown, detached=True, tell=tell)
        assert tunnel.link.wire.connection.interactive
        tunnel._leave(os.dup(tell))
        os.write(tell, b"asks" if tunnel.link.wire.connection.interactive else b"asks nobody")
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        assert pipe.read() == b"1asks nobody"
    os.waitpid(child, 0)


def _tunnel() -> Any:
    found = Found(
        wire.connect(HostProfile("box"), interactive=False), (Way(Target("port 9", None, 9), 23456, "port 9 of box"),)
    )
    shown: Any = None
    return hold._Open(found, shown, detached=False)


def test_the_token_stands_in_no_browsers_argv(laptop: Path) -> None:
    tunnel = _tunnel()
    page = OpenDoor("Jupyter", "http://127.0.0.1:23456/lab?token=secret", 23456, "jupyter-1111")
    address = tunnel._for_browser(page)
    assert address.startswith("http://127.0.0.1:23456/gpurun-open/")
    assert "secret" not in address
    assert tunnel._for_browser(BOARD) == BOARD.url
    tunnel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_closes_it_even_while_its_event_is_locked(laptop: Path, number: signal.Signals) -> None:
    tunnel = _tunnel()
    previous = hold._end_at_signals(tunnel)
    try:
        ended: Any = tunnel.link._ended
        with ended._cond:  # as in the middle of a wait
            os.kill(os.getpid(), number)
        assert ended.wait(20)
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
        tunnel.close()


def test_a_closed_terminal_means_nothing_under_nohup(laptop: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    tunnel = _tunnel()
    previous = hold._end_at_signals(tunnel)
    try:
        assert list(previous) == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, previous[signal.SIGTERM])
        signal.signal(signal.SIGHUP, before)
        tunnel.close()
