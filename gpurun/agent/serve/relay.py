"""From a Unix socket to a port of 127.0.0.1, for a container whose loopback is out of reach: `relay.py SOCKET PORT`.

It lives for as long as its stdin is open.
"""

import asyncio
import os
import sys

PIECE = 1 << 18  # bytes


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its end or a failure of the other."""
    try:
        while True:
            data = await reader.read(PIECE)
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
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=PIECE)
    os.chmod(path, 0o600)
    await asyncio.get_event_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()
    os.unlink(path)
    os._exit(0)  # connections that are open do not keep it


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], int(sys.argv[2])))
