"""Connect over jump hosts without prompts.

ssh starts another ssh for each host of a ProxyJump and does not pass on its BatchMode and its timeouts. So a jump host with
password login would ask for the password at each try, or get empty passwords where there is no terminal.
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

MAX_JUMPS = 8


def without_prompts(connection: Connection) -> Connection:
    """Return the same connection, on which neither the host nor a jump host can ask for a password."""
    quiet = replace(connection, interactive=False)
    jumps = _all_jumps(quiet)
    return replace(quiet, proxy=proxy_command(jumps, quiet.connect_timeout)) if jumps else quiet


def proxy_command(jumps: Sequence[str], connect_timeout: int) -> str:
    """Return a ProxyCommand over `jumps` ([user@]host[:port] or ssh://...), nearest first, to `[%h]:%p`."""
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
        argv.append("-oProxyCommand=" + proxy_command(before, connect_timeout).replace("%", "%%"))
    return shlex.join([*argv, "-W", "[%h]:%p", "--", _url(last)])


def _all_jumps(connection: Connection) -> list[str]:
    """Return all jump hosts, nearest first. The configuration of the nearest one may name further jump hosts."""
    jumps = _jumps(connection)
    while jumps and len(jumps) < MAX_JUMPS:
        before = _jumps(Connection(jumps[0], Address(_url(jumps[0]))))
        if not before or set(before) & set(jumps):  # a `Host *` may match the jump host too
            break
        jumps = [*before, *jumps]
    return jumps


def _url(jump: str) -> str:
    return jump if jump.startswith("ssh://") else f"ssh://{jump}"


def _jumps(connection: Connection) -> list[str]:
    jump = _proxy_jump(tuple(program()), connection)
    # Only ssh itself can expand a `%` token.
    return [] if jump is None or "%" in jump else jump.split(",")


@lru_cache
def _proxy_jump(ssh: tuple[str, ...], connection: Connection) -> str | None:
    """Return the ProxyJump of the connection; `ssh` is part of the key of the cache."""
    try:
        return config.resolve(connection).jump
    except (UsageError, process.TimedOut, process.NotInstalled):  # the connection itself will report it
        return None
