"""Proxy one connection through a door: the client's request, the service, and the bytes between them."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpurun.tunnel import pages
from gpurun.tunnel.guard import Guard, Request
from gpurun.tunnel.once import Once

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


class Doors(Protocol):
    """What a passage needs of all doors of its tunnel."""

    once: Once

    @property
    def ports(self) -> set[int]:
        """The ports that our own pages come from."""

    def heard(self) -> None:
        """Bytes came from the host."""


class Passage:
    """From a client's first word to the last byte of either side."""

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
            if not self._connect():
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
            if self._connect():
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
            hang_up(self._client)
        return False

    def _connect(self) -> bool:
        """Whether somebody takes the connection, who may still turn out not to lead on."""
        if self._upstream is not None:
            return True
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream.setblocking(False)
        try:
            # At once or not at all; asyncio would take a full queue (EAGAIN) for a connection that is under way.
            upstream.connect(str(self._door.upstream))
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
        hang_up(client)
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
                # Not `wait_for`: in Python 3.11 it can swallow the end of the door.
                async with asyncio.timeout(timeout):
                    await woken.wait()
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


def hang_up(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
