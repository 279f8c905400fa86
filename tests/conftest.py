"""What every suite may use."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

# Whoever starts the tests in the background (nohup, a CI's runner) may have them ignore these, and all that they start:
# a test of Ctrl-C would then wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets the fixture `home` finds no home at all, and writes nothing into the user's own."""
    monkeypatch.setenv("HOME", "/dev/null/home")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with nothing in it, and no variables that name another."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "GPURUN_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder
