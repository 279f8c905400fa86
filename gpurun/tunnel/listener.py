"""Listen on ports of this laptop while the connection to the host comes and goes.

A listener forwards each client to a Unix socket, which exists while the connection to the host is up. While it is down, the
listener holds the client: a browser tab that was opened too early gets through as soon as the service answers. `RequestFilter`
checks what the client sends; the response is forwarded unchanged.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import threading
import time
from contextlib import closing, suppress
from functools import partial

from gpurun.errors import UsageError
from gpurun.tunnel import pages
from gpurun.tunnel.one_time_url import OneTimeUrls
from gpurun.tunnel.proxy_connection import RETRY_INTERVAL, Listener, ProxyConnection, finish_sending
from gpurun.tunnel.request_filter import LocalResponse, Refused

PORTS_TO_TRY = 50  # after the requested port
UNPRIVILEGED_OFFSET = 8000  # added to a port that only root can listen on: 80 becomes 8080
BACKLOG = 128
SPARE_DESCRIPTORS = 64


class Listeners:
    """The listeners of one tunnel, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ports: set[int] = set()
        self._last_traffic = 0.0
        self.one_time_urls = OneTimeUrls()
        self._free_slots = asyncio.Semaphore(_max_connections())
        self._thread = threading.Thread(target=self._loop.run_forever, name="listeners", daemon=True)
        self._thread.start()

    def open(self, listener: Listener) -> int:
        """Return the local port: the requested one, or the next free one. Raises UsageError when none is free."""
        server = _listen(listener.port)
        port: int = server.getsockname()[1]
        self._ports.add(port)

        async def start() -> None:
            self._tasks[listener.name] = asyncio.create_task(self._accept_clients(listener, server))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        return port

    def close_one(self, name: str) -> None:
        """Close the listener; do nothing when it is already closed."""

        async def stop() -> None:
            task = self._tasks.pop(name, None)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()

    def close(self) -> None:
        """Close all listeners and their connections."""
        for name in list(self._tasks):
            self.close_one(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def last_traffic(self) -> float:
        """Return when bytes last came from the host, by the monotonic clock."""
        return self._last_traffic

    @property
    def ports(self) -> set[int]:
        """The local ports that the tunnel's own pages come from."""
        return self._ports

    def note_traffic(self) -> None:
        """Record that bytes came from the host."""
        self._last_traffic = time.monotonic()

    async def _accept_clients(self, listener: Listener, server: socket.socket) -> None:
        with closing(server):
            try:
                async with asyncio.TaskGroup() as connections:
                    while True:
                        await self._free_slots.acquire()
                        try:
                            client, _ = await self._loop.sock_accept(server)
                        except OSError:  # no descriptor is free, or the client left: the listener stays open
                            self._free_slots.release()
                            await asyncio.sleep(RETRY_INTERVAL)
                            continue
                        except BaseException:  # this listener was closed: another listener can use the slot
                            self._free_slots.release()
                            raise
                        # A callback, because a task that is cancelled before its first step runs no `finally`.
                        task = connections.create_task(self._serve_client(listener, client))
                        task.add_done_callback(partial(self._release_client, client))
            finally:
                self._ports.discard(server.getsockname()[1])

    async def _serve_client(self, listener: Listener, client: socket.socket) -> None:
        # An exception here would cancel the task group, and close the listener with all its other connections.
        with closing(client), suppress(Exception):
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with closing(ProxyConnection(self, listener, client)) as connection:
                await self._run_connection(connection, client)

    def _release_client(self, client: socket.socket, _: asyncio.Task[None]) -> None:
        client.close()
        self._free_slots.release()

    async def _run_connection(self, connection: ProxyConnection, client: socket.socket) -> None:
        try:
            await connection.run()
        except Refused as refused:
            await self._loop.sock_sendall(client, pages.refused(refused.status, str(refused)))
            finish_sending(client)
        except LocalResponse as local:
            await self._loop.sock_sendall(client, local.response)
            finish_sending(client)


def _max_connections() -> int:
    """Return how many connections may be open at a time; further clients wait.

    Each connection needs two descriptors. Some descriptors stay free for reconnecting to the host.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 500 if limit == resource.RLIM_INFINITY else max(8, min(500, (limit - SPARE_DESCRIPTORS) // 2))


def _listen(requested: int) -> socket.socket:
    if requested < 1024:
        with suppress(PermissionError):
            return _listen_from(requested)
        requested += UNPRIVILEGED_OFFSET
    return _listen_from(requested)


def _listen_from(requested: int) -> socket.socket:
    last = min(requested + PORTS_TO_TRY, 65535)
    for port in range(requested, last + 1):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen(BACKLOG)
        except OSError as error:
            server.close()
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
            continue
        server.setblocking(False)
        return server
    raise UsageError(
        f"all ports from {requested} to {last} of this laptop are in use", "choose another: -p LOCAL:REMOTE"
    )
