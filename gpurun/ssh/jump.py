"""The way over other hosts, for an ssh that is to ask nobody.

ssh starts another ssh for each host of a ProxyJump, and does not pass on that nobody is to be asked, nor when to give up: one
that wants a password would ask for it at each try, or send empty ones where there is no terminal.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from gpurun import process
from gpurun.errors import UsageError
from gpurun.ssh import config
from gpurun.ssh.openssh import Address, Connection, program

MANY = 8  # hosts on the way


def asking_nobody(connection: Connection) -> Connection:
    """The same connection, which asks for no password on any host of its way."""
    quiet = replace(connection, interactive=False)
    jumps = _way(quiet)
    return replace(quiet, proxy=command(jumps, quiet.connect_timeout)) if jumps else quiet


def command(jumps: Sequence[str], connect_timeout: int) -> str:
    """A ProxyCommand over `jumps` ([user@]host[:port] or ssh://...), the nearest first; `[%h]:%p` is where it leads."""
    *before, last = jumps
    argv = [
        *program(),
        "-oBatchMode=yes",
        "-oStrictHostKeyChecking=ask",
        f"-oConnectTimeout={connect_timeout}",
        "-oServerAliveInterval=5",
        "-oServerAliveCountMax=3",
    ]
    if before:
        argv.append("-oProxyCommand=" + command(before, connect_timeout).replace("%", "%%"))
    return shlex.join([*argv, "-W", "[%h]:%p", "--", _url(last)])


def _way(connection: Connection) -> list[str]:
    """All jumps, the nearest first. The nearest is reached as its own configuration says: over others, maybe."""
    way = _jumps(connection)
    while way and len(way) < MANY:
        before = _jumps(Connection(way[0], Address(_url(way[0]))))
        if not before or set(before) & set(way):  # a `Host *` may mean the jump host too
            break
        way = [*before, *way]
    return way


def _url(jump: str) -> str:
    return jump if jump.startswith("ssh://") else f"ssh://{jump}"


def _jumps(connection: Connection) -> list[str]:
    told = _told(tuple(program()), connection)
    # What ssh itself is to fill in is left to it.
    return [] if told is None or "%" in told else told.split(",")


@lru_cache
def _told(ssh: tuple[str, ...], connection: Connection) -> str | None:
    """What `ssh` knows of the way, asked once."""
    try:
        return config.resolve(connection).jump
    except (UsageError, process.TimedOut, process.NotInstalled):  # the connection itself will tell
        return None
