"""A tunnel's process, in the background."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpurun import wire
from gpurun.config.hosts import Host
from gpurun.tunnel import hold
from gpurun.tunnel.link import Target
from gpurun.tunnel.plan import Found, Way


def test_who_has_left_the_terminal_asks_nobody_there(laptop: Path) -> None:
    """Without a terminal ssh would send three empty passwords, each a failed login."""
    found = Found(
        wire.connect(Host("box"), interactive=True), (Way(Target("port 9", None, 9), 23456, "port 9 of box"),)
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
