"""Runs on a real SSH host on loopback, and a laptop that fetches from it."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpurun import fetch
from gpurun.config.hosts import HostProfile
from gpurun.events import Event
from gpurun.fetch import checkpoint, one_pass
from gpurun.remote import wire
from tests.support.faultproxy import FaultProxy
from tests.support.run_folder import RunFolder
from tests.support.slow_line import slow_line

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


class FetchedRun:
    """A run that plays on the host (write into `.job`), and the folder that it is fetched into."""

    def __init__(self, host: EmbeddedHost, folder: Path) -> None:
        self.id = f"train-{secrets.token_hex(2)}"
        self.job = RunFolder(host.home / ".gpurun", self.id)
        self.to = folder / "fetched" / self.id
        self.wire = wire.connect(HostProfile(host.alias), interactive=False)
        self.events: list[Event] = []

    def fetch(self, **options: Any) -> fetch.Fetched:
        report = options.pop("report", self.events.append)
        return fetch.fetch_run(self.wire, self.id, self.to, report=report, **options)

    def files(self, *, record: bool = False) -> dict[str, bytes]:
        """What lies in the destination; gpurun's own record only when asked for."""
        return {
            str(path.relative_to(self.to)): path.read_bytes()
            for path in sorted(self.to.rglob("*"))
            if path.is_file()
            and path.relative_to(self.to).parts[0] != ".gpurun"
            and (record or path.relative_to(self.to).parts[0] != "_gpurun")
        }


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once again at what was being written."""
    for module in (one_pass, checkpoint):
        monkeypatch.setattr(module, "PAUSE", 0.0)


@pytest.fixture
def laptop(embedded_host: EmbeddedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedHost]:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("GPURUN_SSH", shlex.join(embedded_host.ssh_command))
    yield embedded_host
    wire.connect(HostProfile(embedded_host.alias), interactive=False).connection.close()


@pytest.fixture
def slow(laptop: EmbeddedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with slow_line(laptop, tmp_path) as (proxy, ssh):
        monkeypatch.setenv("GPURUN_SSH", ssh)
        yield proxy
        wire.connect(HostProfile(laptop.alias), interactive=False).connection.close()


@pytest.fixture
def run(laptop: EmbeddedHost, tmp_path: Path) -> FetchedRun:
    return FetchedRun(laptop, tmp_path)
