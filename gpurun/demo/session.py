"""Run one command on the embedded SSH host, and copy bytes between the channel and the process, as sshd does."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncssh

CHUNK = 256 * 1024  # bytes

# A command on a terminal needs it as its controlling terminal, which only the child itself can set.
TAKE_TERMINAL = """\
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class TerminalOutput(asyncio.StreamReaderProtocol):
    """Read a terminal to its end, which is EIO: taken for an error, it would hide the bytes that came before it."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


Channel = asyncssh.SSHServerProcess[bytes]


@dataclass(frozen=True)
class Shell:
    """The environment of commands: their home, their variables, and the shell (absolute path)."""

    home: Path
    environment: Mapping[str, str]
    program: str

    def argv(self, command: str | None) -> list[str]:
        return [self.program] if command is None else [self.program, "-c", command]


@dataclass(frozen=True)
class Command:
    """A started command, and our ends of its pipes or of its terminal (with the descriptor `terminal`)."""

    process: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader | None
    terminal: int | None = None

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def resize(self, columns: int, rows: int) -> None:
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def serve(channel: Channel, shell: Shell) -> None:
    """Run the channel's command to its end, and report the end after all of its output was sent.

    As with sshd, the channel stays open while any process holds the command's output open. When the client disconnects
    first, the command's process group gets SIGHUP; a process that left the group by setsid continues.
    """
    # With a low limit of 0, `drain` waits until nothing is buffered that the exit status could cut off.
    channel.channel.set_write_buffer_limits(high=4 * CHUNK, low=0)
    command = await (_start_on_terminal if channel.term_type else _start_on_pipes)(channel, shell)
    copying = asyncio.create_task(_copy_input(channel, command))
    ended = asyncio.create_task(_until_end(channel, command))
    gone = asyncio.create_task(channel.channel.wait_closed())
    await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        command.signal(signal.SIGHUP)
    code = await ended
    copying.cancel()
    with contextlib.suppress(OSError, asyncssh.Error):
        if code < 0:
            channel.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        else:
            channel.exit(code)
    await gone


def _environment(channel: Channel, shell: Shell) -> dict[str, str]:
    peer, own = channel.get_extra_info("peername"), channel.get_extra_info("sockname")
    environment = dict(shell.environment)
    environment["SSH_CLIENT"] = f"{peer[0]} {peer[1]} {own[1]}"
    environment["SSH_CONNECTION"] = f"{peer[0]} {peer[1]} {own[0]} {own[1]}"
    if agent := channel.channel.get_agent_path():
        environment["SSH_AUTH_SOCK"] = agent
    if channel.term_type:
        environment["TERM"] = channel.term_type
    # The variables that Debian's sshd accepts from the client.
    environment.update({k: v for k, v in channel.env.items() if k == "LANG" or k.startswith("LC_")})
    return environment


async def _start_on_pipes(channel: Channel, shell: Shell) -> Command:
    process = await asyncio.create_subprocess_exec(
        *shell.argv(channel.command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=shell.home,
        env=_environment(channel, shell),
        start_new_session=True,
        limit=CHUNK,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return Command(process, process.stdin, process.stdout, process.stderr)


async def _start_on_terminal(channel: Channel, shell: Shell) -> Command:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", TAKE_TERMINAL),
        *shell.argv(channel.command),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=shell.home,
        env=_environment(channel, shell),
    )
    os.close(theirs)
    loop = asyncio.get_running_loop()
    output = asyncio.StreamReader(limit=CHUNK)
    await loop.connect_read_pipe(lambda: TerminalOutput(output), os.fdopen(ours, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(os.dup(ours), "wb", 0)
    )
    command = Command(process, asyncio.StreamWriter(transport, protocol, None, loop), output, None, ours)
    columns, rows, *_ = channel.term_size
    command.resize(columns, rows)
    return command


async def _copy_input(channel: Channel, command: Command) -> None:
    """Copy from the client to the command until one of them ends."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while True:
            try:
                data = await channel.stdin.read(CHUNK)
            except asyncssh.TerminalSizeChanged as size:
                command.resize(size.width, size.height)
                continue
            except asyncssh.SignalReceived as received:
                command.signal(signal.Signals[f"SIG{received.signal}"])
                continue
            if not data:
                break
            command.stdin.write(data)
            await command.stdin.drain()
    if command.terminal is None:
        command.stdin.close()


async def _until_end(channel: Channel, command: Command) -> int:
    """Wait for the command and all of its output; return its exit code, or minus the signal that ended it."""
    outputs = [_drain(command.stdout, channel.stdout)]
    if command.stderr is not None:
        outputs.append(_drain(command.stderr, channel.stderr))
    await asyncio.gather(*outputs)
    code = await command.process.wait()
    command.stdin.close()
    return code


async def _drain(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    """Copy until the source ends. When the client is gone, keep reading, so that nothing blocks on a full pipe."""
    is_connected = True
    # A terminal ends with an error (EIO) where a pipe ends with nothing.
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            if not is_connected:
                continue
            try:
                target.write(data)
                await target.drain()
            except (OSError, asyncssh.Error):
                is_connected = False
