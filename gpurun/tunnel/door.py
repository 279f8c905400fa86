"""Doors: ports of this laptop that stay open while what is behind them comes and goes.

A door leads to a Unix socket, which is there while the connection to the host is. Who comes meanwhile is held until it is
back: a browser tab opened too early gets through once the service answers. What a browser asks for is looked at first
(`guard`); what comes back passes untouched.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from gpurun.errors import UsageError
from gpurun.tunnel import pages
from gpurun.tunnel.guard import Answered, Guard, Refused, Request
from gpurun.tunnel.once import Once

TRIES = 50  # ports after the wanted one
PRIVILEGED = 8000  # is added to a port that only root may take: 80 becomes 8080
BACKLOG = 128
PIECE = 1 << 18  # bytes
DOWNLOAD = 1 << 22  # bytes that came over one connection; what follows has a thread of its own
DAY = 86400.0  # seconds
RETRY = 0.2  # seconds between two looks whether the service is there
PAGE_AFTER = 5.0  # seconds until somebody who looks is told that we wait
HELD_FOR = 60.0  # seconds that a program is held


@dataclass(frozen=True)
class Door:
    """One port and what is behind it; `what` and `host` are for people."""

    name: str
    port: int  # the wanted one
    upstream: Path
    host: str
    what: str


class Doors:
    """The doors of a tunnel, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: dict[str, asyncio.Task[None]] = {}
        self._ports: set[int] = set()
        self._last_byte = 0.0
        self.once = Once()
        self._thread = threading.Thread(target=self._loop.run_forever, name="doors", daemon=True)
        self._thread.start()

    def open(self, door: Door) -> int:
        """The port that it got: the wanted one, or the next that is free. Raises UsageError when none is."""
        listener = _listen(door.port)
        port: int = listener.getsockname()[1]
        self._ports.add(port)

        async def start() -> None:
            self._open[door.name] = asyncio.create_task(self._accept(door, listener))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        return port

    def close_one(self, name: str) -> None:
        """Nothing happens when it is closed already."""

        async def end() -> None:
            task = self._open.pop(name, None)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()

    def close(self) -> None:
        """Close all, with every connection."""
        for name in list(self._open):
            self.close_one(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def traffic(self) -> float:
        """When bytes last came from the host, by the monotonic clock."""
        return self._last_byte

    @property
    def ports(self) -> set[int]:
        """Those that our own pages come from."""
        return self._ports

    def heard(self) -> None:
        """Bytes came from the host."""
        self._last_byte = time.monotonic()

    async def _accept(self, door: Door, listener: socket.socket) -> None:
        with closing(listener):
            try:
                async with asyncio.TaskGroup() as passages:
                    while True:
                        try:
                            client, _ = await self._loop.sock_accept(listener)
                        except OSError:  # no descriptor is left, or who came has gone: no reason to close the door
                            await asyncio.sleep(RETRY)
                            continue
                        passages.create_task(self._pass(door, client))
            finally:
                self._ports.discard(listener.getsockname()[1])

    async def _pass(self, door: Door, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with closing(client), closing(_Passage(self, door, client)) as passage, suppress(OSError):
            try:
                await passage.go()
            except Refused as refused:
                await self._loop.sock_sendall(client, pages.refused(refused.status, str(refused)))
                _hang_up(client)
            except Answered as own:
                await self._loop.sock_sendall(client, own.response)
                _hang_up(client)


def _listen(wanted: int) -> socket.socket:
    if wanted < 1024:
        with suppress(PermissionError):
            return _listen_from(wanted)
        wanted += PRIVILEGED
    return _listen_from(wanted)


def _listen_from(wanted: int) -> socket.socket:
    last = min(wanted + TRIES, 65535)
    for port in range(wanted, last + 1):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
            continue
        listener.setblocking(False)
        return listener
    raise UsageError(f"the ports {wanted} to {last} of this laptop are all taken", "name another: -p LOCAL:REMOTE")


class _Passage:
    """One connection: what the client says, the service it is led to, and the bytes between them."""

    def __init__(self, doors: Doors, door: Door, client: socket.socket) -> None:
        self._doors, self._door, self._client = doors, door, client
        self._loop = asyncio.get_running_loop()
        self._guard = Guard(doors.ports, self._own)
        self._upstream: socket.socket | None = None

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _own(self, request: Request) -> bytes | None:
        return self._doors.once.answer(request.method, request.target, self._client)

    async def go(self) -> None:
        """Until one side is done. Raises Refused, Answered and OSError."""
        if not await self._begins():
            return
        opening = b""
        while not self._guard.decided and _readable(self._client):
            data = await self._loop.sock_recv(self._client, PIECE)
            if not data:
                return
            opening += self._guard.feed(data)
            if not self._guard.decided:
                await self._wait(self._client)
        if await self._sent(opening):
            await self._pump()

    async def _begins(self) -> bool:
        """Until somebody speaks; False when nobody does. A service that speaks first is not a web server: all passes."""
        until = time.monotonic() + PAGE_AFTER
        while not _readable(self._client):
            if not await self._connect():
                if time.monotonic() > until:
                    return False
                await self._wait(self._client, timeout=RETRY)
                continue
            assert self._upstream is not None
            await self._wait(self._client, self._upstream)
            if _readable(self._upstream):
                if _has_bytes(self._upstream):
                    self._guard.pass_all()
                    return True
                self.close()  # nobody listens there yet: ssh took the connection and closed it again
                await self._wait(self._client, timeout=RETRY)
        return True

    async def _sent(self, opening: bytes) -> bool:
        """Send the client's first words until something comes back, if they can be repeated; False: it is over."""
        request, began = self._guard.first, time.monotonic()
        limit = HELD_FOR if request is not None else PAGE_AFTER
        while True:
            if await self._connect():
                assert self._upstream is not None
                with suppress(BrokenPipeError, ConnectionResetError):
                    await self._loop.sock_sendall(self._upstream, opening)
                if request is None or not request.repeatable:
                    return True
                await self._wait(self._client, self._upstream)
                if _readable(self._client) or _has_bytes(self._upstream):
                    return True
                self.close()
            waited = time.monotonic() - began
            if waited > (PAGE_AFTER if request is not None and request.for_page else limit):
                return await self._gives_up(request)
            await asyncio.sleep(RETRY)
            if _readable(self._client) and not _has_bytes(self._client):
                return False  # gone

    async def _gives_up(self, request: Request | None) -> bool:
        if request is not None:
            page = pages.waiting if request.for_page else pages.unavailable
            await self._loop.sock_sendall(self._client, page(self._door.what, self._door.host))
            _hang_up(self._client)
        return False

    async def _connect(self) -> bool:
        """Whether somebody takes the connection, who may still turn out not to lead on."""
        if self._upstream is not None:
            return True
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream.setblocking(False)
        try:
            await self._loop.sock_connect(upstream, str(self._door.upstream))
        except OSError:
            upstream.close()
            return False
        self._upstream = upstream
        return True

    async def _pump(self) -> None:
        """Both directions, until both are done or one fails."""
        both = [asyncio.create_task(self._from_client()), asyncio.create_task(self._from_host())]
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _from_client(self) -> None:
        assert self._upstream is not None
        while data := await self._loop.sock_recv(self._client, PIECE):
            await self._loop.sock_sendall(self._upstream, self._guard.feed(data))
        self._upstream.shutdown(socket.SHUT_WR)

    async def _from_host(self) -> None:
        upstream, client = self._upstream, self._client
        assert upstream is not None
        buffer = memoryview(bytearray(PIECE))
        passed = 0
        while size := await self._loop.sock_recv_into(upstream, buffer):
            self._doors.heard()
            await self._loop.sock_sendall(client, buffer[:size])
            passed += size
            if passed > DOWNLOAD:
                await self._download(upstream, client)
                break
        _hang_up(client)
        if _is_gone(upstream):
            raise ConnectionResetError  # it takes nothing any more either

    async def _download(self, upstream: socket.socket, client: socket.socket) -> None:
        """The rest of what comes, without a turn of the loop for each piece: that costs a fifth of the rate."""
        done = self._loop.create_future()

        def tell() -> None:
            if not done.done():
                done.set_result(None)

        def carry() -> None:
            with suppress(OSError):
                _carry(upstream.dup(), client.dup(), self._doors.heard)
            with suppress(RuntimeError):  # the doors were closed meanwhile
                self._loop.call_soon_threadsafe(tell)

        threading.Thread(target=carry, name="download", daemon=True).start()
        try:
            await done
        except asyncio.CancelledError:
            for one in (upstream, client):  # wakes the thread
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            raise

    async def _wait(self, *sockets: socket.socket, timeout: float | None = None) -> None:
        """Until something can be read from one of them; nothing is read."""
        woken = asyncio.Event()
        for one in sockets:
            self._loop.add_reader(one, woken.set)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), timeout)
        finally:
            for one in sockets:
                self._loop.remove_reader(one)


def _carry(source: socket.socket, target: socket.socket, heard: Callable[[], None]) -> None:
    """From one to the other until an end. They share their mode with the loop's sockets, so it is not changed."""
    with source, target:
        for one in (source, target):
            one.settimeout(DAY)
        buffer = memoryview(bytearray(PIECE))
        while size := source.recv_into(buffer):
            heard()
            target.sendall(buffer[:size])


def _readable(one: socket.socket) -> bool:
    return bool(_events(one, select.POLLIN))


def _is_gone(one: socket.socket) -> bool:
    """Whether the peer has closed both directions."""
    return bool(_events(one, 0) & select.POLLHUP)


def _events(one: socket.socket, wanted: int) -> int:
    poll = select.poll()
    poll.register(one, wanted)
    return next((events for _, events in poll.poll(0)), 0)


def _has_bytes(one: socket.socket) -> bool:
    """Of a readable one: whether there is something to read, and not its end. Raises OSError when it broke."""
    try:
        return bool(one.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def _hang_up(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
