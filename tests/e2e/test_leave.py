"""`host leave` on a host of its own, for it takes everything away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Laptop

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


@pytest.fixture
def embedded_host() -> Iterator[EmbeddedHost]:
    """In place of the one that all tests share."""
    from gpurun.demo.host import EmbeddedHost

    with tempfile.TemporaryDirectory(prefix="gpurun-host-") as directory, EmbeddedHost(Path(directory)) as host:
        yield host


def test_leaving_an_account_that_others_share_leaves_their_runs(
    laptop: Laptop, embedded_host: EmbeddedHost, tmp_path: Path
) -> None:
    bob = {**laptop.environment, "HOME": str(tmp_path), "USER": "bob", "LOGNAME": "bob"}
    colleague = replace(laptop, home=tmp_path, environment=bob)
    theirs, mine = colleague.submit("train.py", "--", "0", "0"), laptop.submit("train.py", "--", "0", "0")
    colleague.ok("wait", theirs)
    laptop.ok("wait", mine)
    done = laptop.gpurun("host", "leave", "demo")
    assert done.code == 0, done.err
    assert "1 run of bob stay on demo" in done.err
    runs = embedded_host.home / ".gpurun/runs"
    assert [path.name for path in runs.iterdir()] == [theirs]
    assert sorted(path.name for path in (laptop.project / "fetched").glob("train-*")) == [mine]
    colleague.ok("fetch", theirs)
    done = laptop.gpurun("host", "leave", "demo", "--also", "bob", "-y")
    assert done.code == 0, done.err
    assert not runs.exists()
