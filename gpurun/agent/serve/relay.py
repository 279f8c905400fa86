"""Relay a Unix socket to a port of 127.0.0.1 inside a container: `relay.py SOCKET PORT`. Run until stdin closes."""

import asyncio
import os
import sys

BUFFER_SIZE = 1 << 18  # bytes


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end, or until the other direction fails."""
    try:
        while True:
            data = await reader.read(BUFFER_SIZE)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def relay(path: str, port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port_reader, port_writer = await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_SIZE)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(copy(reader, port_writer), copy(port_reader, writer))
        finally:
            port_writer.close()
            writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=BUFFER_SIZE)
    os.chmod(path, 0o600)
    await asyncio.get_event_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()
    os.unlink(path)
    os._exit(0)  # also while connections are open


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], int(sys.argv[2])))
