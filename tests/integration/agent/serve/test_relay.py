"""The relay from a Unix socket to a port of the loopback, on the oldest Python available."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gpurun.agent.setup import services
from tests.support.waiting import eventually

Answer = Callable[[socket.socket], None]
PROGRAM = Path(services.PROGRAMS) / "relay.py"


class Relay:
    """One relay, and a service that answers each connection in a thread."""

    def __init__(self, folder: Path, python: str, stack: ExitStack) -> None:
        self.path = folder / "8080.abcd"
        self.service = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        self.process = stack.enter_context(
            subprocess.Popen(
                [python, str(PROGRAM), str(self.path), str(self.service.getsockname()[1])], stdin=subprocess.PIPE
            )
        )
        stack.callback(self.process.kill)
        self._stack = stack
        eventually(lambda: self.path.exists() and self.mode == 0o600)  # which comes after it listens

    def answer(self, answer: Answer) -> None:
        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = self.service.accept()
                    threading.Thread(target=answer, args=(near,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    @property
    def mode(self) -> int:
        return self.path.stat().st_mode & 0o777

    def client(self) -> socket.socket:
        client = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(30)
        client.connect(str(self.path))
        return client

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def relay(python: str) -> Iterator[Relay]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        yield Relay(Path(folder), python, stack)


def all_of(one: socket.socket) -> bytes:
    with one.makefile("rb") as file:
        return file.read()


def echo(near: socket.socket) -> None:
    with near:
        while data := near.recv(1 << 16):
            near.sendall(data)


def at_the_end(near: socket.socket) -> None:
    """Answer only after the other side has sent everything."""
    with near:
        near.sendall(b"%d bytes" % len(all_of(near)))


def test_socket_is_only_for_its_owner(relay: Relay) -> None:
    assert relay.mode == 0o600


def test_each_direction_ends_separately(relay: Relay) -> None:
    relay.answer(at_the_end)
    client = relay.client()
    client.sendall(b"12345")
    client.shutdown(socket.SHUT_WR)
    assert all_of(client) == b"5 bytes"


def test_service_that_finished_sending_still_receives(relay: Relay) -> None:
    received: list[bytes] = []

    def only_listens(near: socket.socket) -> None:
        near.shutdown(socket.SHUT_WR)
        received.append(all_of(near))
        near.close()

    relay.answer(only_listens)
    client = relay.client()
    assert client.recv(1) == b""
    client.sendall(b"still here")
    client.close()
    eventually(lambda: received == [b"still here"])


def test_large_data_in_both_directions_at_once(relay: Relay) -> None:
    relay.answer(echo)
    client, data = relay.client(), os.urandom(30_000_000)

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    threading.Thread(target=send).start()
    assert all_of(client) == data


def test_slow_reader_does_not_fill_the_memory(relay: Relay) -> None:
    sent = []

    def pour(near: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sent.append(near.send(bytes(1 << 20)))

    relay.answer(pour)
    client = relay.client()
    client.recv(1)
    count = -1
    while count != len(sent):  # until nothing more goes in
        count = len(sent)
        threading.Event().wait(0.3)
    assert sum(sent) < 64 << 20


def test_many_connections_at_once(relay: Relay) -> None:
    relay.answer(echo)
    clients = [relay.client() for _ in range(60)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
        client.shutdown(socket.SHUT_WR)
    assert [all_of(client) for client in reversed(clients)] == [b"%d" % n for n in reversed(range(60))]


def test_refused_port_ends_only_that_connection(relay: Relay) -> None:
    port = relay.service.getsockname()[1]
    relay.service.close()
    assert all_of(relay.client()) == b""
    with socket.create_server(("127.0.0.1", port)) as relay.service:  # the user's program has come up
        relay.answer(echo)
        client = relay.client()
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_end_of_the_client_reaches_the_service(relay: Relay) -> None:
    gone = threading.Event()

    def wait(near: socket.socket) -> None:
        near.recv(1)
        gone.set()

    relay.answer(wait)
    relay.client().close()
    assert gone.wait(30)


def test_relay_ends_with_its_stdin_despite_connections(relay: Relay) -> None:
    relay.answer(echo)
    client = relay.client()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    relay.close_stdin()
    assert relay.process.wait(30) == 0
    assert not relay.path.exists()
    assert client.recv(1) == b""
