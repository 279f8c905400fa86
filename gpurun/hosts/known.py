"""Whether a name means a host at all, and which one may be meant instead. Connects to nobody."""

from __future__ import annotations

import difflib
import socket

from gpurun.config import hosts
from gpurun.errors import UsageError
from gpurun.ssh import config
from gpurun.ssh.openssh import Address, Connection


def names() -> list[str]:
    """The hosts that were added, and the aliases of the user's SSH configuration."""
    return list(dict.fromkeys([*hosts.read().hosts, *config.aliases()]))


def did_you_mean(name: str) -> str:
    """`did you mean gpu1? Else `; empty when no name is near."""
    near = difflib.get_close_matches(name, [known for known in names() if known != name], n=1)
    return f"did you mean {near[0]}? Else " if near else ""


def check_known(name: str) -> None:
    """Raises UsageError for a name that was not added, is no SSH alias, and that no resolver knows."""
    if name in names():
        return
    # A pattern of the configuration, such as `Host gpu-*`, may say where it is.
    there = config.resolve(Connection(name, Address(name)))
    if there.jump or there.proxy_command:  # what is on the way may know the name
        return
    try:
        socket.getaddrinfo(there.host, None)
    except OSError as error:
        raise UsageError(
            f"no host {name} was added, and no machine is known by that name",
            f"{did_you_mean(name)}gpurun host add {name} user@address",
        ) from error
