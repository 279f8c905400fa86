"""Proxy one client connection of a listener: wait for the service, check the requests, copy the bytes in both directions."""

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
from gpurun.tunnel.one_time_url import OneTimeUrls
from gpurun.tunnel.request_filter import Request, RequestFilter

BUFFER_SIZE = 1 << 18  # bytes
DOWNLOAD_AFTER = 1 << 22  # bytes over one connection; after that, a thread of its own copies the rest
DAY = 86400.0  # seconds
RETRY_INTERVAL = 0.2  # seconds between two tries to reach the service
PAGE_AFTER = 5.0  # seconds until a browser gets a page that says that gpurun waits
HOLD_TIMEOUT = 60.0  # seconds that the request of a program waits


@dataclass(frozen=True)
class Listener:
    """One local port and the service behind it. `host` and `what` appear in messages to the user."""

    name: str
    port: int  # the requested one
    upstream: Path
    host: str
    what: str


class Tunnel(Protocol):
    """The part of a tunnel that its proxy connections need."""

    one_time_urls: OneTimeUrls

    @property
    def ports(self) -> set[int]:
        """The local ports that the tunnel's own pages come from."""

    def note_traffic(self) -> None:
        """Record that bytes came from the host."""


class ProxyConnection:
    """One connection, from the client's first byte to the last byte of either side."""

    def __init__(self, tunnel: Tunnel, listener: Listener, client: socket.socket) -> None:
        self._tunnel, self._listener, self._client = tunnel, listener, client
        self._loop = asyncio.get_running_loop()
        self._filter = RequestFilter(tunnel.ports, self._answer_locally)
        self._upstream: socket.socket | None = None

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _answer_locally(self, request: Request) -> bytes | None:
        return self._tunnel.one_time_urls.answer(request.method, request.target, self._client)

    async def run(self) -> None:
        """Proxy until one side ends. Raises Refused, LocalResponse and OSError."""
        if not await self._wait_for_first_bytes():
            return
        opening = b""
        while not self._filter.protocol_known and _is_readable(self._client):
            data = await self._loop.sock_recv(self._client, BUFFER_SIZE)
            if not data:
                return
            opening += self._filter.feed(data)
            if not self._filter.protocol_known:
                await self._wait(self._client)
        if await self._send_opening(opening):
            await self._copy_both_ways()

    async def _wait_for_first_bytes(self) -> bool:
        """Wait until one side sends bytes; return False when neither does.

        A service that sends first is not a web server, so the filter then passes everything.
        """
        deadline = time.monotonic() + PAGE_AFTER
        while not _is_readable(self._client):
            if not self._connect():
                if time.monotonic() > deadline:
                    return False
                await self._wait(self._client, timeout=RETRY_INTERVAL)
                continue
            assert self._upstream is not None
            await self._wait(self._client, self._upstream)
            if _is_readable(self._upstream):
                if _has_bytes(self._upstream):
                    self._filter.pass_all()
                    return True
                self.close()  # nothing listens on the host yet: ssh accepted the connection and closed it again
                await self._wait(self._client, timeout=RETRY_INTERVAL)
        return True

    async def _send_opening(self, opening: bytes) -> bool:
        """Send the client's first bytes to the service; return False when the connection has ended.

        A request that can be repeated is sent again until something comes back.
        """
        request, started = self._filter.first_request, time.monotonic()
        limit = HOLD_TIMEOUT if request is not None else PAGE_AFTER
        while True:
            if self._connect():
                assert self._upstream is not None
                with suppress(BrokenPipeError, ConnectionResetError):
                    await self._loop.sock_sendall(self._upstream, opening)
                if request is None or not request.is_repeatable:
                    return True
                await self._wait(self._client, self._upstream)
                if _is_readable(self._client) or _has_bytes(self._upstream):
                    return True
                self.close()
            waited = time.monotonic() - started
            if waited > (PAGE_AFTER if request is not None and request.wants_page else limit):
                return await self._answer_unavailable(request)
            await asyncio.sleep(RETRY_INTERVAL)
            if _is_readable(self._client) and not _has_bytes(self._client):
                return False  # the client left

    async def _answer_unavailable(self, request: Request | None) -> bool:
        if request is not None:
            page = pages.waiting if request.wants_page else pages.unavailable
            await self._loop.sock_sendall(self._client, page(self._listener.what, self._listener.host))
            finish_sending(self._client)
        return False

    def _connect(self) -> bool:
        """Return whether ssh accepts the connection; the service behind it may still refuse it."""
        if self._upstream is not None:
            return True
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream.setblocking(False)
        try:
            # Not `loop.sock_connect`: it treats a full queue (EAGAIN) as a connection in progress.
            upstream.connect(str(self._listener.upstream))
        except OSError:
            upstream.close()
            return False
        self._upstream = upstream
        return True

    async def _copy_both_ways(self) -> None:
        """Copy until both directions have ended, or one fails."""
        directions = [asyncio.create_task(self._copy_from_client()), asyncio.create_task(self._copy_from_host())]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _copy_from_client(self) -> None:
        assert self._upstream is not None
        while data := await self._loop.sock_recv(self._client, BUFFER_SIZE):
            await self._loop.sock_sendall(self._upstream, self._filter.feed(data))
        self._upstream.shutdown(socket.SHUT_WR)

    async def _copy_from_host(self) -> None:
        upstream, client = self._upstream, self._client
        assert upstream is not None
        buffer = memoryview(bytearray(BUFFER_SIZE))
        copied = 0
        while size := await self._loop.sock_recv_into(upstream, buffer):
            self._tunnel.note_traffic()
            await self._loop.sock_sendall(client, buffer[:size])
            copied += size
            if copied > DOWNLOAD_AFTER:
                await self._download(upstream, client)
                break
        finish_sending(client)
        if _is_closed(upstream):
            raise ConnectionResetError  # the service reads nothing any more either

    async def _download(self, upstream: socket.socket, client: socket.socket) -> None:
        """Copy the rest of the response in a thread: one turn of the event loop per buffer costs a fifth of the rate."""
        finished = self._loop.create_future()

        def set_finished() -> None:
            if not finished.done():
                finished.set_result(None)

        def copy() -> None:
            with suppress(OSError):
                _copy_until_end(upstream.dup(), client.dup(), self._tunnel.note_traffic)
            with suppress(RuntimeError):  # the listeners were closed meanwhile
                self._loop.call_soon_threadsafe(set_finished)

        threading.Thread(target=copy, name="download", daemon=True).start()
        try:
            await finished
        except asyncio.CancelledError:
            for each in (upstream, client):  # this wakes the thread
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            raise

    async def _wait(self, *sockets: socket.socket, timeout: float | None = None) -> None:
        """Wait until one of the sockets is readable; read nothing."""
        readable = asyncio.Event()
        for each in sockets:
            self._loop.add_reader(each, readable.set)
        try:
            with suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it can swallow the cancellation of this task.
                async with asyncio.timeout(timeout):
                    await readable.wait()
        finally:
            for each in sockets:
                self._loop.remove_reader(each)


def _copy_until_end(source: socket.socket, target: socket.socket, note_traffic: Callable[[], None]) -> None:
    """Copy from `source` to `target` until `source` ends.

    The two are duplicates of the event loop's sockets and share their blocking mode, so only a timeout is set.
    """
    with source, target:
        for each in (source, target):
            each.settimeout(DAY)
        buffer = memoryview(bytearray(BUFFER_SIZE))
        while size := source.recv_into(buffer):
            note_traffic()
            target.sendall(buffer[:size])


def _is_readable(connection: socket.socket) -> bool:
    return bool(_poll(connection, select.POLLIN))


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the peer has closed both directions."""
    return bool(_poll(connection, 0) & select.POLLHUP)


def _poll(connection: socket.socket, wanted: int) -> int:
    poll = select.poll()
    poll.register(connection, wanted)
    return next((events for _, events in poll.poll(0)), 0)


def _has_bytes(connection: socket.socket) -> bool:
    """Return whether a readable socket has bytes, not its end. Raises OSError when the connection broke."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def finish_sending(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
