"""The proxy that other tests trust to be slow and broken."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.faultproxy import FaultProxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                client.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def connect(proxy: FaultProxy, timeout: float = 5) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    answer = b""
    while len(answer) < len(data):
        answer += client.recv(65536)
    return answer


def test_it_delays_each_way_and_counts_turns(echo: int) -> None:
    with FaultProxy(echo, delay=0.05) as proxy, connect(proxy) as client:
        ask(client, b"first")
        started = time.monotonic()
        ask(client, b"second")
        assert time.monotonic() - started >= 0.1
        assert (proxy.traffic[0].turns, proxy.traffic[0].up, proxy.traffic[0].down) == (1, 11, 11)


def test_large_data_comes_through_whole(echo: int) -> None:
    data = bytes(range(256)) * 4096
    with FaultProxy(echo, delay=0.01) as proxy, connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(data,)).start()
        answer = b""
        while len(answer) < len(data):
            answer += client.recv(65536)
        assert answer == data


def test_an_end_of_file_comes_through(echo: int) -> None:
    with FaultProxy(echo) as proxy, connect(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        assert client.recv(100) == b"last words"
        assert client.recv(100) == b""


def test_a_reset_breaks_what_is_open_and_lets_new_ones_in(echo: int) -> None:
    with FaultProxy(echo) as proxy:
        with connect(proxy) as client:
            ask(client, b"x")
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connect(proxy) as client:
            assert ask(client, b"y") == b"y"


def test_a_reset_after_so_many_bytes(echo: int) -> None:
    with FaultProxy(echo) as proxy, connect(proxy) as client:
        proxy.reset_after(1000)
        ask(client, b"x" * 900)
        with pytest.raises(ConnectionResetError):
            ask(client, b"x" * 900)


def test_a_black_hole_holds_everything_until_it_is_healed(echo: int) -> None:
    with FaultProxy(echo) as proxy, connect(proxy, timeout=0.3) as client:
        ask(client, b"x")
        proxy.blackhole()
        client.sendall(b"anyone?")
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        assert client.recv(100) == b"anyone?"


def test_refused_connections_are_accepted_again_on_the_same_port(echo: int) -> None:
    with FaultProxy(echo) as proxy, connect(proxy) as standing:
        ask(standing, b"x")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(standing, b"y") == b"y"
        proxy.heal()
        with connect(proxy) as client:
            assert ask(client, b"z") == b"z"


def test_a_trickle_is_as_slow_as_told(echo: int) -> None:
    with FaultProxy(echo) as proxy, connect(proxy) as client:
        proxy.trickle(20_000)
        started = time.monotonic()
        ask(client, b"x" * 10_000)
        assert time.monotonic() - started >= 0.45


def test_a_target_that_is_down_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with FaultProxy(port) as proxy, connect(proxy) as client:
        assert client.recv(1) == b""
