"""Why a connection failed, and the exact repair. Asked only after ssh has failed."""

from __future__ import annotations

from gpurun.errors import HostUnreachable
from gpurun.ssh.openssh import Connection


def explain(connection: Connection, said: str) -> HostUnreachable:
    """What keeps us from `connection`'s host. `said` is ssh's last line, shown and never decided by."""
    return HostUnreachable(
        f"no connection to {connection.name}" + (f" ({said})" if said else ""),
        f"try `ssh {connection.address}`",
        where=connection.name,
    )
