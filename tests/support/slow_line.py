"""A slow line to the embedded host, so that a transfer is still under way when something happens to it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.faultproxy import FaultProxy

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

RATE = 20e6  # bytes/s


@contextlib.contextmanager
def slow_line(host: EmbeddedHost, folder: Path) -> Iterator[tuple[FaultProxy, str]]:
    """The proxy, and the GPURUN_SSH that goes through it. `folder` gets an SSH configuration."""
    with FaultProxy(host.port, rate=RATE) as proxy:
        config = folder / "slow_ssh_config"
        through = f"Port {proxy.port}\n    HostKeyAlias [127.0.0.1]:{host.port}"
        config.write_text(host.ssh_config.read_text().replace(f"Port {host.port}", through))
        yield proxy, shlex.join(["ssh", "-F", str(config)])
