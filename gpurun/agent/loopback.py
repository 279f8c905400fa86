"""Listen on the host for the connections that sshd forwards, and pass them to the socket of a run.

That is a Unix socket of ours. Or a port of this host's loopback, for an sshd that forwards to ports alone: every user of the
host can connect to it, and the laptop says so.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Callable, Optional, Union

PIECE = 1 << 18  # bytes
GREETING = b"gpurun\n"
RETRY = 0.1  # seconds


def greet(path: Optional[str]) -> Union[str, int]:
    """Greet whoever connects to the Unix socket `path`, or to a port of the loopback, which is returned then.

    By this the laptop learns whether the host's sshd lets it through, before a program of the user's is touched.
    """
    server = _server(path)
    threading.Thread(target=_greet, args=(server,), daemon=True).start()
    return path or int(server.getsockname()[1])


def _greet(server: socket.socket) -> None:
    while True:
        with _next(server) as near:
            try:
                near.sendall(GREETING)
            except OSError:  # it went away
                pass


def listen(lead_on: Callable[[], socket.socket], path: Optional[str] = None) -> Union[str, int]:
    """Pass on whoever connects to `path`, or to a port, to what `lead_on` connects with, for as long as this process lives.

    The path, or the port, which the kernel chooses.
    """
    server = _server(path)
    threading.Thread(target=_accept, args=(server, lead_on), daemon=True).start()
    return path or int(server.getsockname()[1])


def _server(path: Optional[str]) -> socket.socket:
    server = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
    if path:
        server.bind(path)
        os.chmod(path, 0o600)
    else:
        server.bind(("127.0.0.1", 0))
    server.listen(128)
    return server


def _accept(server: socket.socket, lead_on: Callable[[], socket.socket]) -> None:
    while True:
        threading.Thread(target=_serve, args=(_next(server), lead_on), daemon=True).start()


def _next(server: socket.socket) -> socket.socket:
    """Whoever comes next; when no descriptor is left, once there is one again."""
    while True:
        try:
            return server.accept()[0]
        except OSError:
            time.sleep(RETRY)


def _serve(near: socket.socket, lead_on: Callable[[], socket.socket]) -> None:
    with near:
        try:
            far = lead_on()
        except OSError:
            return
        with far:
            _both(near, far)


def _both(near: socket.socket, far: socket.socket) -> None:
    there = threading.Thread(target=_pump, args=(near, far), daemon=True)
    there.start()
    _pump(far, near)
    there.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """One direction, to its end; a failure ends the other too."""
    try:
        while True:
            data = source.recv(PIECE)
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)
    except OSError:
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                pass
