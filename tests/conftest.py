"""What every suite may use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


@pytest.fixture(scope="session")
def embedded_host() -> Iterator[EmbeddedHost]:
    """A real SSH host on loopback that needs no root; all tests of the session share its home.

    Its directory is short because jobs put sockets below it, whose paths are limited to about 104 bytes.
    """
    from gpurun.demo.host import EmbeddedHost

    with (
        tempfile.TemporaryDirectory(prefix="gpurun-host-") as directory,
        EmbeddedHost(Path(directory)) as host,
    ):
        yield host
