"""Listen on the host for the connections that sshd forwards, and pass them to the socket of a run.

The listener is a Unix socket of this user, or a port of this host's loopback for an sshd that forwards to ports only.
Every user of the host can connect to such a port; the laptop warns about it.
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
    """Greet each client of the Unix socket `path`, or of a port of the loopback. Return the path or the port.

    By the greeting the laptop learns whether the host's sshd forwards to the listener, before it connects to a program
    of the user.
    """
    server = _make_listener(path)
    threading.Thread(target=_greet, args=(server,), daemon=True).start()
    return path or int(server.getsockname()[1])


def _greet(server: socket.socket) -> None:
    while True:
        with _accept_one(server) as near:
            try:
                near.sendall(GREETING)
            except OSError:  # the client closed the connection
                pass


def listen(connect_target: Callable[[], socket.socket], path: Optional[str] = None) -> Union[str, int]:
    """Connect each client of `path`, or of a port, with a socket from `connect_target`, as long as this process lives.

    Returns the path, or the port that the kernel chose.
    """
    server = _make_listener(path)
    threading.Thread(target=_accept, args=(server, connect_target), daemon=True).start()
    return path or int(server.getsockname()[1])


def _make_listener(path: Optional[str]) -> socket.socket:
    server = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM)
    if path:
        server.bind(path)
        os.chmod(path, 0o600)
    else:
        server.bind(("127.0.0.1", 0))
    server.listen(128)
    return server


def _accept(server: socket.socket, connect_target: Callable[[], socket.socket]) -> None:
    while True:
        threading.Thread(target=_proxy, args=(_accept_one(server), connect_target), daemon=True).start()


def _accept_one(server: socket.socket) -> socket.socket:
    """Return the next client. When no file descriptor is left, wait until one is free."""
    while True:
        try:
            return server.accept()[0]
        except OSError:
            time.sleep(RETRY)


def _proxy(near: socket.socket, connect_target: Callable[[], socket.socket]) -> None:
    with near:
        try:
            far = connect_target()
        except OSError:
            return
        with far:
            _copy_both_ways(near, far)


def _copy_both_ways(near: socket.socket, far: socket.socket) -> None:
    there = threading.Thread(target=_copy_one_way, args=(near, far), daemon=True)
    there.start()
    _copy_one_way(far, near)
    there.join()


def _copy_one_way(source: socket.socket, target: socket.socket) -> None:
    """Copy one direction until it ends. A failure also ends the other direction."""
    try:
        while True:
            data = source.recv(PIECE)
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)
    except OSError:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is already closed
                pass
