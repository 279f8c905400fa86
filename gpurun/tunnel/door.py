"""Listen on ports of this laptop (doors) that stay open while the connection to the host comes and goes.

A door leads to a Unix socket, which is there while the connection to the host is. Who comes meanwhile is held until it is
back: a browser tab opened too early gets through once the service answers. What a browser asks for is looked at first
(`guard`); what comes back passes untouched.
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
from gpurun.tunnel.guard import Answered, Refused
from gpurun.tunnel.once import Once
from gpurun.tunnel.passage import RETRY, Door, Passage, hang_up

TRIES = 50  # ports after the wanted one
PRIVILEGED = 8000  # is added to a port that only root may take: 80 becomes 8080
BACKLOG = 128
SPARE = 64  # descriptors


class Doors:
    """The doors of a tunnel, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: dict[str, asyncio.Task[None]] = {}
        self._ports: set[int] = set()
        self._last_byte = 0.0
        self.once = Once()
        self._places = asyncio.Semaphore(_room())
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
                        await self._places.acquire()
                        try:
                            client, _ = await self._loop.sock_accept(listener)
                        except OSError:  # no descriptor is left, or who came has gone: no reason to close the door
                            self._places.release()
                            await asyncio.sleep(RETRY)
                            continue
                        except BaseException:  # the door was closed: the place is for the other doors
                            self._places.release()
                            raise
                        # A callback, for a task that is cancelled before its first step runs no `finally`.
                        passages.create_task(self._pass(door, client)).add_done_callback(partial(self._leave, client))
            finally:
                self._ports.discard(listener.getsockname()[1])

    async def _pass(self, door: Door, client: socket.socket) -> None:
        # A connection that fails, in whatever way, ends alone: an exception would close the door with all others.
        with closing(client), suppress(Exception):
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with closing(Passage(self, door, client)) as passage:
                await self._go(passage, client)

    def _leave(self, client: socket.socket, _: asyncio.Task[None]) -> None:
        client.close()
        self._places.release()

    async def _go(self, passage: Passage, client: socket.socket) -> None:
        try:
            await passage.go()
        except Refused as refused:
            await self._loop.sock_sendall(client, pages.refused(refused.status, str(refused)))
            hang_up(client)
        except Answered as own:
            await self._loop.sock_sendall(client, own.response)
            hang_up(client)


def _room() -> int:
    """Connections at a time, of two descriptors each; who comes then waits. Some are left for a new way to the host."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 500 if limit == resource.RLIM_INFINITY else max(8, min(500, (limit - SPARE) // 2))


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
