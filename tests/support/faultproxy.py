"""A TCP proxy on loopback that is as slow and as unreliable as a test wants.

    with FaultProxy(target_port, delay=0.05) as proxy:      # 100 ms round trip
        connect_to(proxy.port)
        proxy.blackhole()                                   # connections stay open, nothing comes through
        proxy.heal()                                        # what was held goes on

By hand: `python -m tests.support.faultproxy 2222 22 --delay 0.05 --at 10:reset --at 20:refuse --at 25:heal`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TypeVar

CHUNK = 1 << 18
IN_FLIGHT = 1024
TICKS = 20  # a trickle moves that many times a second

T = TypeVar("T")


@dataclass
class Traffic:
    """What one connection has carried. A turn is the client's speaking after it heard the server: a round trip."""

    turns: int = 0
    up: int = 0
    down: int = 0
    seconds: float = 0.0
    heard: bool = False

    def count(self, size: int, *, upward: bool) -> None:
        if upward:
            self.turns += self.heard
            self.up += size
        else:
            self.down += size
        self.heard = not upward


class FaultProxy:
    """Passes connections on to `target_port`. Every method may be called from any thread, at any time.

    `delay` is in seconds, one way; a connection's handshake costs two of it. `rate` is in bytes a second and direction.
    """

    def __init__(self, target_port: int, *, delay: float = 0.0, rate: float | None = None, port: int = 0) -> None:
        self.target_port = target_port
        self.delay = delay
        self.rate = rate
        self.port = port
        self.traffic: list[Traffic] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._budget: int | None = None
        self._then: int | None = None  # the budget after this one

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Listen; `port` is the port from here on."""
        self._thread.start()
        self._loop.call_soon_threadsafe(self._open.set)
        self._do(self._listen())

    def close(self) -> None:
        """Reset what is open, listen no more, and end the thread."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def reset(self) -> None:
        """Break every open connection off with a TCP reset. New ones get through."""
        self._call(self._reset_all)

    def reset_after(self, size: int, *, again: bool = False) -> None:
        """Break every connection off as soon as `size` further bytes have come from the target; `again` and again."""

        def limit() -> None:
            self._budget, self._then = size, size if again else None

        self._call(limit)

    def blackhole(self) -> None:
        """From now on nothing comes through, in either direction, and nobody is told: connections stay open."""
        self._call(self._open.clear)

    def refuse(self) -> None:
        """New connections are refused; those that stand go on."""
        self._do(self._stop_listening())

    def trickle(self, rate: float) -> None:
        """From now on only `rate` bytes a second come through, for each direction of each connection."""
        self.rate = rate

    def heal(self) -> None:
        """No faults any more: what was held in a black hole goes on, new connections are accepted."""
        self.rate = None

        def open_again() -> None:
            self._budget = self._then = None
            self._open.set()

        self._call(open_again)
        self._do(self._listen())

    @property
    def turns(self) -> int:
        """The round trips of all connections so far."""
        return sum(each.turns for each in self.traffic)

    def _do(self, steps: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(steps, self._loop).result(timeout=10)

    def _call(self, act: Callable[[], None]) -> None:
        async def acting() -> None:
            act()

        self._do(acting())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server:
            server.close()

    async def _close(self) -> None:
        await self._stop_listening()
        self._reset_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            connected: socket.socket | None = writer.get_extra_info("socket")
            if connected is not None:
                with contextlib.suppress(OSError):
                    # Lingering for no time at all makes closing a reset.
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        traffic, started = Traffic(), time.monotonic()
        self.traffic.append(traffic)
        self._writers.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            await asyncio.sleep(2 * self.delay)
            await self._open.wait()
            away, beyond = await asyncio.open_connection("127.0.0.1", self.target_port, limit=CHUNK)
            self._writers.add(beyond)
            await asyncio.gather(
                self._pump(reader, beyond, traffic, upward=True),
                self._pump(away, writer, traffic, upward=False),
            )
        except (OSError, asyncio.CancelledError):
            pass  # the target refused, or a fault or the proxy's end came over the connection
        finally:
            traffic.seconds = time.monotonic() - started
            for each in (writer, beyond):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, traffic: Traffic, *, upward: bool
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=IN_FLIGHT)
        arriving = asyncio.create_task(self._arrive(on_the_way, writer))
        try:
            data = b"?"
            while data and not arriving.done():
                await self._open.wait()
                try:
                    data = await reader.read(CHUNK if self.rate is None else max(1, int(self.rate / TICKS)))
                except ConnectionError:
                    data = b""
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                traffic.count(len(data), upward=upward) if data else None
                await on_the_way.put((self._loop.time() + self.delay, data))
                if not upward:
                    self._spend(len(data))
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await on_the_way.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._open.wait()
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

    def _spend(self, size: int) -> None:
        if self._budget is not None:
            self._budget -= size
            if self._budget <= 0:
                self._budget = self._then
                self._reset_all()


def main(arguments: list[str] | None = None) -> None:
    """Run one proxy in the foreground until Ctrl-C, then print what each connection carried as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.faultproxy", description=__doc__)
    parser.add_argument("port", type=int, help="the loopback port to listen on; 0 takes a free one")
    parser.add_argument("target", type=int, help="the loopback port to pass connections on to")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, one way")
    parser.add_argument("--rate", type=float, help="bytes a second, for each direction of each connection")
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="SECONDS:FAULT",
        help="reset, blackhole, refuse, heal, trickle=BYTES_A_SECOND or reset_after=BYTES; may be given many times",
    )
    options = parser.parse_args(arguments)
    script = sorted((float(moment), fault) for moment, _, fault in (line.partition(":") for line in options.at))
    with FaultProxy(options.target, delay=options.delay, rate=options.rate, port=options.port) as proxy:
        print(f"127.0.0.1:{proxy.port} -> 127.0.0.1:{options.target}", flush=True)
        started = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            for moment, fault in script:
                time.sleep(max(0.0, started + moment - time.monotonic()))
                name, _, value = fault.partition("=")
                getattr(proxy, name)(*([float(value) if name == "trickle" else int(value)] if value else []))
                print(f"{moment:g} s: {fault}", file=sys.stderr, flush=True)
            threading.Event().wait()
    for each in proxy.traffic:
        print(json.dumps(asdict(each)))


if __name__ == "__main__":
    main()
