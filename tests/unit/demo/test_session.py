"""Bytes between a channel of the embedded SSH host and a command."""

from __future__ import annotations

import asyncio
import errno

from gpurun.demo.session import TerminalOutput


def test_last_output_of_a_terminal_is_read_although_it_ends_with_an_error() -> None:
    async def read() -> bytes:
        output = asyncio.StreamReader()
        protocol = TerminalOutput(output)
        protocol.data_received(b"the last line\n")
        protocol.connection_lost(OSError(errno.EIO, "Input/output error"))
        return await output.read()

    assert asyncio.run(read()) == b"the last line\n"
