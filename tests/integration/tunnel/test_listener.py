"""Listeners with real sockets: a client of this laptop on one side, a service behind a Unix socket on the other."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from gpurun.errors import UsageError
from gpurun.tunnel import listener as module
from gpurun.tunnel import proxy_connection
from gpurun.tunnel.listener import Listeners
from gpurun.tunnel.proxy_connection import Listener
from tests.support.descriptors import no_descriptors_left

Answer = Callable[[socket.socket], None]
PAGE = b"GET /lab HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Service:
    """A service that answers each connection in a thread."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.connections: list[socket.socket] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(200)
        self._path = path
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._talk, args=[connection], daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self._answer(connection)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        for one in (self._listener, *self.connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join()


class Place:
    """A listener, and the service that may be behind it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.socket = folder / "s"
        self._stack = stack
        self.listeners = stack.enter_context(closing(Listeners()))
        self.port = self.open("Jupyter")

    def open(self, name: str, port: int = 23456) -> int:
        return self.listeners.open(Listener(name, port, self.socket, "box", f"{name} of <digits>"))

    def serve(self, answer: Answer) -> Service:
        return self._stack.enter_context(closing(Service(self.socket, answer)))

    def client(self) -> socket.socket:
        client = self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        client.settimeout(20)
        return client


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        yield Place(Path(folder), stack)


def shorten_timeouts(monkeypatch: pytest.MonkeyPatch, page_after: float = 0.5, hold_timeout: float = 0.5) -> None:
    monkeypatch.setattr(proxy_connection, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(proxy_connection, "PAGE_AFTER", page_after)
    monkeypatch.setattr(proxy_connection, "HOLD_TIMEOUT", hold_timeout)


def read_all(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        return file.read()


def serve_page(connection: socket.socket) -> None:
    """Answer each request with the same page."""
    while connection.recv(65536):
        connection.sendall(OK)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b"end")
    connection.close()


def close_at_once(connection: socket.socket) -> None:
    """Do as ssh does when nothing listens at the other end."""
    connection.close()


def test_request_gets_its_response(place: Place) -> None:
    place.serve(serve_page)
    for host in ("localhost", "127.0.0.1"):
        connection = http.client.HTTPConnection(host, place.port)
        for _ in range(3):  # on one connection
            connection.request("GET", "/", headers={"Origin": f"http://{host}:{place.port}"})
            assert connection.getresponse().read() == b"hi"
        connection.close()
    assert place.listeners.last_traffic() > 0


def test_request_of_another_sites_page_is_refused_and_never_reaches_the_service(place: Place) -> None:
    received = []

    def receive(connection: socket.socket) -> None:
        received.append(connection.recv(100))

    place.serve(receive)
    client = place.client()
    client.sendall(PAGE.replace(b"localhost", b"evil.example"))
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"evil.example" in answer
    assert b"Access-Control" not in answer
    assert received in ([], [b""])


def test_second_request_of_a_connection_is_checked_too(place: Place) -> None:
    place.serve(serve_page)
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK
    client.sendall(PAGE.replace(b"Accept:", b"Origin: http://evil.example\r\nAccept:"))
    assert read_all(client).startswith(b"HTTP/1.1 403 ")


def test_port_in_use_is_replaced_by_the_next_free_one(place: Place) -> None:
    assert place.open("TensorBoard", place.port) == place.port + 1


def test_open_without_a_free_port_raises_a_usage_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTS_TO_TRY", 0)
    with pytest.raises(UsageError, match="in use") as error:
        place.open("TensorBoard", place.port)
    assert "-p LOCAL:REMOTE" in str(error.value.next_step)


def test_privileged_port_is_moved_up_for_other_users(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = module._listen_from

    def only_root(wanted: int) -> socket.socket:
        if wanted < 1024:
            raise PermissionError
        return listen(wanted)

    monkeypatch.setattr(module, "_listen_from", only_root)
    assert 8080 <= place.open("port 80", 80) <= 8080 + module.PORTS_TO_TRY


def test_browser_tab_opened_too_early_gets_through(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_timeouts(monkeypatch, page_after=30)
    client = place.client()
    client.sendall(PAGE)
    service = place.serve(close_at_once)  # ssh is there, but nothing behind it
    while len(service.connections) < 3:
        pass
    service.close()
    place.serve(serve_page)
    assert client.recv(1000) == OK


def test_browser_gets_a_waiting_page_while_the_service_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_timeouts(monkeypatch)
    client = place.client()
    client.sendall(PAGE)
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRefresh: 2\r\n" in answer
    assert b"\r\nCache-Control: no-store\r\n" in answer
    assert b"Waiting for Jupyter of &lt;digits&gt; on box" in answer


def test_program_gets_a_line_of_text_while_the_service_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_timeouts(monkeypatch)
    client = place.client()
    client.sendall(PAGE.replace(b"text/html", b"application/json"))
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"Jupyter of <digits> on box does not answer\n")


def test_request_that_is_not_repeatable_is_sent_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_timeouts(monkeypatch, page_after=30)
    received = []

    def receive(connection: socket.socket) -> None:
        received.append(connection.recv(1000))
        connection.close()

    place.serve(receive)
    client = place.client()
    request = PAGE.replace(b"GET", b"POST").replace(b"Accept", b"Content-Length: 4\r\nAccept") + b"once"
    client.sendall(request)
    assert read_all(client) == b""
    assert received == [request]


def test_service_that_sends_first_is_forwarded(place: Place) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        echo(connection)

    place.serve(greet)
    client = place.client()
    assert client.recv(100) == b"220 hello\r\n"
    client.sendall(b"GET / HTT")  # looks like a request, but this service does not speak HTTP
    assert client.recv(100) == b"GET / HTT"


def test_websocket_frames_are_forwarded_unchanged(place: Place) -> None:
    place.serve(echo)
    client = place.client()
    upgrade = PAGE.replace(b"Accept:", b"Connection: Upgrade\r\nUpgrade: websocket\r\nAccept:")
    client.sendall(upgrade)
    assert client.recv(1000) == upgrade
    client.sendall(b"\x81\x05GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert client.recv(1000).startswith(b"\x81\x05GET")


def test_end_of_one_direction_is_forwarded(place: Place) -> None:
    place.serve(echo)
    client = place.client()
    client.sendall(b"\0 all that there is")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"\0 all that there isend"


def test_large_response_is_complete_and_waits_for_a_slow_reader(place: Place) -> None:
    data = os.urandom(1 << 20) * 24
    sent = threading.Event()

    def send(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(data)
        sent.set()
        connection.close()

    place.serve(send)
    client = place.client()
    client.sendall(PAGE)
    assert not sent.wait(0.5)  # the tunnel does not buffer it
    assert read_all(client) == data


def test_interrupted_download_leaves_no_thread(place: Place) -> None:
    sent = threading.Event()

    def send(connection: socket.socket) -> None:
        connection.recv(1000)
        with suppress(OSError):
            while True:
                connection.sendall(b"x" * 100_000)
        sent.set()

    place.serve(send)
    client = place.client()
    client.sendall(PAGE)
    for _ in range(100):
        client.recv(1 << 18)
    place.listeners.close_one("Jupyter")
    assert sent.wait(60)
    for thread in threading.enumerate():
        if thread.name == "download":
            thread.join(10)
            assert not thread.is_alive()


def test_hundred_clients_at_once_get_responses(place: Place) -> None:
    place.serve(serve_page)
    clients = [place.client() for _ in range(100)]
    for client in clients:
        client.sendall(PAGE)
    assert [client.recv(1000) for client in clients] == [OK] * 100


def test_listener_stays_open_when_no_descriptor_is_free(place: Place) -> None:
    """macOS gives a program 256 descriptors."""
    with socket.socket() as one_too_many, no_descriptors_left():
        one_too_many.connect(("127.0.0.1", place.port))
        time.sleep(0.5)
    place.serve(serve_page)
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK


def test_client_beyond_the_connection_limit_waits_for_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_max_connections", lambda: 2)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        place = Place(Path(folder), stack)
        place.serve(echo)
        first, second, third = (place.client() for _ in range(3))
        for client in (first, second, third):
            client.sendall(b"\0hello\n")
        assert (first.recv(7), second.recv(7)) == (b"\0hello\n", b"\0hello\n")
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(7)
        first.close()
        third.settimeout(20)
        assert third.recv(7) == b"\0hello\n"


def test_listener_closed_while_it_waits_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_max_connections", lambda: 3)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        place = Place(Path(folder), stack)
        place.serve(echo)
        for number in range(5):  # more than there are slots
            with socket.create_connection(("127.0.0.1", place.open(f"port {number}", 23500))) as client:
                client.sendall(b"\0hello\n")
                client.settimeout(20)
                assert client.recv(7) == b"\0hello\n"  # so the listener waits for the next client
            place.listeners.close_one(f"port {number}")
        for client in [place.client() for _ in range(3)]:
            client.sendall(b"\0hello\n")
            assert client.recv(7) == b"\0hello\n"


def test_connection_cancelled_before_its_first_step_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_max_connections", lambda: 2)
    create_task = asyncio.TaskGroup.create_task
    cut: list[asyncio.Task[None]] = []

    def create(group: asyncio.TaskGroup, *args: Any, **options: Any) -> asyncio.Task[None]:
        task = create_task(group, *args, **options)
        if len(cut) < 3:
            task.cancel()
            cut.append(task)
        return task

    monkeypatch.setattr(asyncio.TaskGroup, "create_task", create)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        place = Place(Path(folder), stack)
        place.serve(echo)
        for _ in range(3):
            assert place.client().recv(1) == b""
        client = place.client()
        client.sendall(b"\0hello\n")
        assert client.recv(7) == b"\0hello\n"


def test_cancellation_together_with_client_bytes_is_not_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for` of Python 3.11 loses a cancellation that comes in the same turn as the awaited result."""

    async def both_at_once() -> bool:
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        woken = []
        monkeypatch.setattr(loop, "add_reader", lambda _, wake: woken.append(wake))
        with ours, theirs:
            connection = proxy_connection.ProxyConnection(
                place.listeners, Listener("x", 1, place.socket, "box", "x"), ours
            )
            waiting = asyncio.create_task(connection._wait(ours, timeout=5))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            woken[0]()
            waiting.cancel()
            await asyncio.wait([waiting])
            return waiting.cancelled()

    with asyncio.Runner() as runner:
        assert runner.run(both_at_once())


def test_closing_one_listener_leaves_the_other_open(place: Place) -> None:
    place.serve(serve_page)
    other = place.open("TensorBoard")
    client = place.client()
    client.sendall(PAGE)
    client.recv(1000)
    place.listeners.close_one("Jupyter")
    place.listeners.close_one("Jupyter")
    with suppress(ConnectionResetError):
        assert client.recv(1000) == b""
    with pytest.raises(ConnectionRefusedError):
        place.client()
    place.port = other
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK


def test_broken_connections_leave_no_descriptors(place: Place) -> None:
    gone = threading.Semaphore(0)

    def until_gone(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1000))
        with suppress(ConnectionResetError):
            connection.recv(1)
        connection.close()
        gone.release()

    place.serve(until_gone)

    def break_one() -> None:
        client = place.client()
        client.sendall(b"\0")
        client.recv(1)
        client.close()
        assert gone.acquire(timeout=60)

    break_one()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        break_one()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before:  # the last connection is still being closed
        assert time.monotonic() < deadline


def test_broken_link_ends_its_connections(place: Place) -> None:
    service = place.serve(serve_page)
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK
    service.close()
    assert client.recv(1000) == b""


def test_client_that_sends_nothing_is_disconnected(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_timeouts(monkeypatch)
    assert place.client().recv(1) == b""


def test_close_leaves_no_thread() -> None:
    before = threading.active_count()
    listeners = Listeners()
    listeners.open(Listener("a", 23456, Path("/nowhere"), "box", "a"))
    listeners.close()
    assert threading.active_count() == before
