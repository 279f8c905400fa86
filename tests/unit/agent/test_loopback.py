"""What the host's sshd is tried out with, and what stands in front of a run's own socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpurun.agent import loopback

Answer = Callable[[socket.socket], None]


def all_of(one: socket.socket) -> bytes:
    with one.makefile("rb") as file:
        return file.read()


def send_all(one: socket.socket, data: bytes) -> None:
    one.sendall(data)
    one.shutdown(socket.SHUT_WR)


def connected(place: str | int) -> socket.socket:
    if isinstance(place, int):
        return socket.create_connection(("127.0.0.1", place), timeout=20)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(place)
    return client


def leading_to(path: str) -> Callable[[], socket.socket]:
    return lambda: connected(path)


@pytest.mark.parametrize("by_path", [True, False])
def test_everybody_is_greeted(tmp_path: Path, *, by_path: bool) -> None:
    place = loopback.greet(str(tmp_path / "probe") if by_path else None)
    for _ in range(3):
        with connected(place) as client:
            assert all_of(client) == loopback.GREETING
    connected(place).close()  # one that goes at once
    with connected(place) as client:
        assert all_of(client) == loopback.GREETING


def test_a_probe_is_for_its_owner(tmp_path: Path) -> None:
    path = loopback.greet(str(tmp_path / "probe"))
    assert os.stat(path).st_mode & 0o777 == 0o600


def serve(path: Path, answer: Answer) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def accept() -> None:
            while True:
                try:
                    near, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(near,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield str(path)
        server.shutdown(socket.SHUT_RDWR)


def answer_at_the_end(near: socket.socket) -> None:
    """A half-closed connection still brings the answer."""
    with near:
        near.sendall(all_of(near)[::-1] + b"end")


@pytest.fixture
def backwards(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path / "s", answer_at_the_end)


def test_a_port_leads_to_the_socket_and_each_direction_ends_by_itself(backwards: str) -> None:
    port = loopback.listen(leading_to(backwards))
    data = os.urandom(3_000_000)
    with connected(port) as client:
        threading.Thread(target=send_all, args=(client, data)).start()
        assert all_of(client) == data[::-1] + b"end"


def test_a_socket_can_stand_there_too(backwards: str, tmp_path: Path) -> None:
    path = loopback.listen(leading_to(backwards), str(tmp_path / "front"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    with connected(path) as client:
        send_all(client, b"abc")
        assert all_of(client) == b"cbaend"


def test_it_listens_on_the_loopback_alone(backwards: str) -> None:
    port = loopback.listen(leading_to(backwards))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [line[1] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]


def test_many_at_once(backwards: str) -> None:
    port = loopback.listen(leading_to(backwards))
    clients = [connected(port) for _ in range(50)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    for number, client in reversed(list(enumerate(clients))):
        client.shutdown(socket.SHUT_WR)
        assert all_of(client) == str(number)[::-1].encode() + b"end"
        client.close()


def test_nobody_behind_the_socket_is_an_end(tmp_path: Path) -> None:
    with connected(loopback.listen(leading_to(str(tmp_path / "nothing")))) as client:
        assert all_of(client) == b""


def test_a_service_that_breaks_off_ends_the_connection(tmp_path: Path) -> None:
    def break_off(near: socket.socket) -> None:
        near.recv(1)
        near.close()  # what came is unread: this is a reset

    for path in serve(tmp_path / "s", break_off):
        with connected(loopback.listen(leading_to(path))) as client:
            client.sendall(bytes(1000))
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
