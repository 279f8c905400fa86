"""Doors, with real sockets: a client of this laptop on one side, a service behind a Unix socket on the other."""

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
from gpurun.tunnel import door as module
from gpurun.tunnel import passage
from gpurun.tunnel.door import Doors
from gpurun.tunnel.passage import Door
from tests.unit.agent.descriptors import no_descriptors_left

Answer = Callable[[socket.socket], None]
PAGE = b"GET /lab HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Service:
    """Answers each connection in a thread."""

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
    """A door and what may be behind it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.socket = folder / "s"
        self._stack = stack
        self.doors = stack.enter_context(closing(Doors()))
        self.port = self.open("Jupyter")

    def open(self, name: str, port: int = 23456) -> int:
        return self.doors.open(Door(name, port, self.socket, "box", f"{name} of <digits>"))

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


def quickly(monkeypatch: pytest.MonkeyPatch, page_after: float = 0.5, held_for: float = 0.5) -> None:
    monkeypatch.setattr(passage, "RETRY", 0.01)
    monkeypatch.setattr(passage, "PAGE_AFTER", page_after)
    monkeypatch.setattr(passage, "HELD_FOR", held_for)


def all_of(one: socket.socket) -> bytes:
    with one.makefile("rb") as file:
        return file.read()


def web(connection: socket.socket) -> None:
    """A web server that knows one answer."""
    while connection.recv(65536):
        connection.sendall(OK)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b"end")
    connection.close()


def closes(connection: socket.socket) -> None:
    """As ssh does when nobody listens at the other end."""
    connection.close()


def test_a_request_gets_its_answer(place: Place) -> None:
    place.serve(web)
    for host in ("localhost", "127.0.0.1"):
        connection = http.client.HTTPConnection(host, place.port)
        for _ in range(3):  # on one connection
            connection.request("GET", "/", headers={"Origin": f"http://{host}:{place.port}"})
            assert connection.getresponse().read() == b"hi"
        connection.close()
    assert place.doors.traffic() > 0


def test_a_foreign_page_gets_nothing_and_the_service_hears_nothing(place: Place) -> None:
    heard = []

    def hear(connection: socket.socket) -> None:
        heard.append(connection.recv(100))

    place.serve(hear)
    client = place.client()
    client.sendall(PAGE.replace(b"localhost", b"evil.example"))
    answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"evil.example" in answer
    assert b"Access-Control" not in answer
    assert heard in ([], [b""])


def test_the_second_request_of_a_connection_is_refused_too(place: Place) -> None:
    place.serve(web)
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK
    client.sendall(PAGE.replace(b"Accept:", b"Origin: http://evil.example\r\nAccept:"))
    assert all_of(client).startswith(b"HTTP/1.1 403 ")


def test_a_busy_port_gives_way_to_the_next(place: Place) -> None:
    assert place.open("TensorBoard", place.port) == place.port + 1


def test_no_free_port_is_one_clear_message(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 0)
    with pytest.raises(UsageError, match="all taken") as error:
        place.open("TensorBoard", place.port)
    assert "-p LOCAL:REMOTE" in str(error.value.next_step)


def test_a_port_that_only_root_may_take_is_moved(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = module._listen_from

    def only_root(wanted: int) -> socket.socket:
        if wanted < 1024:
            raise PermissionError
        return listen(wanted)

    monkeypatch.setattr(module, "_listen_from", only_root)
    assert 8080 <= place.open("port 80", 80) <= 8080 + module.TRIES


def test_a_tab_that_is_opened_too_early_gets_through(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch, page_after=30)
    client = place.client()
    client.sendall(PAGE)
    service = place.serve(closes)  # ssh is there, and nobody behind it
    while len(service.connections) < 3:
        pass
    service.close()
    place.serve(web)
    assert client.recv(1000) == OK


def test_who_looks_is_told_that_we_wait(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    client = place.client()
    client.sendall(PAGE)
    answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRefresh: 2\r\n" in answer
    assert b"\r\nCache-Control: no-store\r\n" in answer
    assert b"Waiting for Jupyter of &lt;digits&gt; on box" in answer


def test_a_program_is_told_in_its_own_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    client = place.client()
    client.sendall(PAGE.replace(b"text/html", b"application/json"))
    answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"Jupyter of <digits> on box does not answer\n")


def test_what_may_have_been_done_is_not_done_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch, page_after=30)
    heard = []

    def take(connection: socket.socket) -> None:
        heard.append(connection.recv(1000))
        connection.close()

    place.serve(take)
    client = place.client()
    request = PAGE.replace(b"GET", b"POST").replace(b"Accept", b"Content-Length: 4\r\nAccept") + b"once"
    client.sendall(request)
    assert all_of(client) == b""
    assert heard == [request]


def test_a_service_that_speaks_first_is_heard(place: Place) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        echo(connection)

    place.serve(greet)
    client = place.client()
    assert client.recv(100) == b"220 hello\r\n"
    client.sendall(b"GET / HTT")  # what looks like a request is none here
    assert client.recv(100) == b"GET / HTT"


def test_a_websocket_passes_as_it_is(place: Place) -> None:
    place.serve(echo)
    client = place.client()
    upgrade = PAGE.replace(b"Accept:", b"Connection: Upgrade\r\nUpgrade: websocket\r\nAccept:")
    client.sendall(upgrade)
    assert client.recv(1000) == upgrade
    client.sendall(b"\x81\x05GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert client.recv(1000).startswith(b"\x81\x05GET")


def test_the_end_of_one_direction_is_passed_on(place: Place) -> None:
    place.serve(echo)
    client = place.client()
    client.sendall(b"\0 all that there is")
    client.shutdown(socket.SHUT_WR)
    assert all_of(client) == b"\0 all that there isend"


def test_a_large_answer_comes_whole_and_a_slow_reader_holds_it_back(place: Place) -> None:
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
    assert not sent.wait(0.5)  # it is not gathered on the way
    assert all_of(client) == data


def test_a_download_that_is_broken_off_leaves_no_thread(place: Place) -> None:
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
    place.doors.close_one("Jupyter")
    assert sent.wait(10)
    for thread in threading.enumerate():
        if thread.name == "download":
            thread.join(10)
            assert not thread.is_alive()


def test_a_hundred_at_once(place: Place) -> None:
    place.serve(web)
    clients = [place.client() for _ in range(100)]
    for client in clients:
        client.sendall(PAGE)
    assert [client.recv(1000) for client in clients] == [OK] * 100


def test_when_no_descriptor_is_left_it_stays_open(place: Place) -> None:
    """macOS gives a program 256 of them."""
    with socket.socket() as one_too_many, no_descriptors_left():
        one_too_many.connect(("127.0.0.1", place.port))
        time.sleep(0.5)
    place.serve(web)
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK


def test_whoever_comes_when_all_places_are_taken_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_room", lambda: 2)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        place = Place(Path(folder), stack)
        place.serve(echo)
        first, second, third = (place.client() for _ in range(3))
        for one in (first, second, third):
            one.sendall(b"\0hello\n")
        assert (first.recv(7), second.recv(7)) == (b"\0hello\n", b"\0hello\n")
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(7)
        first.close()
        third.settimeout(20)
        assert third.recv(7) == b"\0hello\n"


def test_doors_closed_while_they_wait_give_their_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_room", lambda: 3)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ExitStack() as stack:
        place = Place(Path(folder), stack)
        place.serve(echo)
        for number in range(5):  # more than there are places
            with socket.create_connection(("127.0.0.1", place.open(f"port {number}", 23500))) as client:
                client.sendall(b"\0hello\n")
                client.settimeout(20)
                assert client.recv(7) == b"\0hello\n"  # so the door waits for who comes next
            place.doors.close_one(f"port {number}")
        for client in [place.client() for _ in range(3)]:
            client.sendall(b"\0hello\n")
            assert client.recv(7) == b"\0hello\n"


def test_connections_cut_before_their_first_step_give_their_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_room", lambda: 2)
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


def test_an_end_that_comes_with_a_word_of_the_client_is_an_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for` of Python 3.11 forgets one that comes in the turn in which what was waited for comes."""

    async def both_at_once() -> bool:
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        woken = []
        monkeypatch.setattr(loop, "add_reader", lambda _, wake: woken.append(wake))
        with ours, theirs:
            one = passage.Passage(place.doors, Door("x", 1, place.socket, "box", "x"), ours)
            waiting = asyncio.create_task(one._wait(ours, timeout=5))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            woken[0]()
            waiting.cancel()
            await asyncio.wait([waiting])
            return waiting.cancelled()

    with asyncio.Runner() as runner:
        assert runner.run(both_at_once())


def test_a_closed_door_is_closed_and_another_stays_open(place: Place) -> None:
    place.serve(web)
    other = place.open("TensorBoard")
    client = place.client()
    client.sendall(PAGE)
    client.recv(1000)
    place.doors.close_one("Jupyter")
    place.doors.close_one("Jupyter")
    with suppress(ConnectionResetError):
        assert client.recv(1000) == b""
    with pytest.raises(ConnectionRefusedError):
        place.client()
    place.port = other
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK


def test_connections_that_break_in_the_middle_leave_nothing(place: Place) -> None:
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
        assert gone.acquire(timeout=10)

    break_one()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        break_one()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before:  # the last one is still being let go of
        assert time.monotonic() < deadline


def test_a_link_that_breaks_ends_its_connections(place: Place) -> None:
    service = place.serve(web)
    client = place.client()
    client.sendall(PAGE)
    assert client.recv(1000) == OK
    service.close()
    assert client.recv(1000) == b""


def test_who_comes_and_goes_without_a_word_is_let_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)
    assert place.client().recv(1) == b""


def test_closing_leaves_no_thread() -> None:
    before = threading.active_count()
    doors = Doors()
    doors.open(Door("a", 23456, Path("/nowhere"), "box", "a"))
    doors.close()
    assert threading.active_count() == before
