"""A tunnel session, in the foreground and detached."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gpurun.config.hosts import HostProfile
from gpurun.remote import wire
from gpurun.tunnel import session
from gpurun.tunnel.link import Target
from gpurun.tunnel.plan import Route, Routes
from gpurun.tunnel.registry import OpenListener
from tests.integration.tunnel.conftest import BOARD


def test_detached_session_does_not_prompt_on_the_terminal(laptop: Path) -> None:
    """Without a terminal, ssh would send three empty passwords, each a failed login."""
    routes = Routes(
        wire.connect(HostProfile("box"), interactive=True), (Route(Target("port 9", None, 9), 23456, "port 9 of box"),)
    )
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        observer: Any = None
        detached = session._Session(routes, observer, detached=True, parent=write_end)
        assert detached.link.wire.connection.interactive
        detached._leave_terminal(os.dup(write_end))
        os.write(write_end, b"asks" if detached.link.wire.connection.interactive else b"asks nobody")
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"1asks nobody"
    os.waitpid(child, 0)


def _session() -> Any:
    routes = Routes(
        wire.connect(HostProfile("box"), interactive=False), (Route(Target("port 9", None, 9), 23456, "port 9 of box"),)
    )
    observer: Any = None
    return session._Session(routes, observer, detached=False)


def test_browser_arguments_have_no_token(laptop: Path) -> None:
    opened = _session()
    page = OpenListener("Jupyter", "http://127.0.0.1:23456/lab?token=secret", 23456, "jupyter-1111")
    url = opened._url_for_browser(page)
    assert url.startswith("http://127.0.0.1:23456/gpurun-open/")
    assert "secret" not in url
    assert opened._url_for_browser(BOARD) == BOARD.url
    opened.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_closes_the_session_while_its_event_is_locked(laptop: Path, number: signal.Signals) -> None:
    opened = _session()
    previous = session._close_on_signals(opened)
    try:
        ended: Any = opened.link._ended
        with ended._cond:  # as in the middle of a wait
            os.kill(os.getpid(), number)
        assert ended.wait(60)
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
        opened.close()


def test_sighup_is_ignored_under_nohup(laptop: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    opened = _session()
    previous = session._close_on_signals(opened)
    try:
        assert list(previous) == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, previous[signal.SIGTERM])
        signal.signal(signal.SIGHUP, before)
        opened.close()
