"""What the host's sshd forwards to when a tunnel is tried out; and a port of this host's loopback in front of a Unix socket, for an sshd that forwards to ports alone.

Every user of the host can connect to it: it is for hosts that refuse the better way, and the laptop says so.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Optional, Union

PIECE = 1 << 18  # bytes
GREETING = b"gpurun\n"
RETRY = 0.1  # seconds


def greet(path: Optional[str]) -> Union[str, int]:
    """Greet whoever connects to the Unix socket `path`, or to a port of the loopback, which is returned then.

    By this the laptop learns whether the host's sshd lets it through, before a program of the user's is touched.
    """
    server = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
    if path:
        server.bind(path)
        os.chmod(path, 0o600)
    else:
        server.bind(("127.0.0.1", 0))
    server.listen(8)
    threading.Thread(target=_greet, args=(server,), daemon=True).start()
    return path or int(server.getsockname()[1])


def _greet(server: socket.socket) -> None:
    while True:
        with _next(server) as near:
            try:
                near.sendall(GREETING)
            except OSError:  # it went away
                pass


def listen(path: str) -> int:
    """Pass on whoever connects, for as long as this process lives; the port, chosen by the kernel."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("127.0.0.1", 0))
    server.listen(128)
    threading.Thread(target=_accept, args=(server, path), daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def _accept(server: socket.socket, path: str) -> None:
    while True:
        threading.Thread(target=_serve, args=(_next(server), path), daemon=True).start()


def _next(server: socket.socket) -> socket.socket:
    """Whoever comes next; when no descriptor is left, once there is one again."""
    while True:
        try:
            return server.accept()[0]
        except OSError:
            time.sleep(RETRY)


def _serve(near: socket.socket, path: str) -> None:
    far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with near, far:
        try:
            far.connect(path)
        except OSError:
            return
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
