"""The registry of open tunnels, each of a process of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gpurun.errors import UsageError
from gpurun.tunnel import registry
from gpurun.tunnel.registry import Tunnel
from tests.integration.tunnel.conftest import BOARD, Start
from tests.unit.tunnel.test_registry import ids


def test_live_returns_what_the_process_wrote(start: Start) -> None:
    process = start("abcd", since=5.0, detached=True)
    (tunnel,) = registry.live()
    assert tunnel == Tunnel("abcd", "box", process.pid, 5.0, registry.UP, detached=True, listeners=(BOARD,))


def test_tunnel_of_another_machine_is_not_listed(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home is shared, and so are its locks; here the pid may belong to another process."""
    process = start("abcd")
    monkeypatch.setattr(registry, "MACHINE_ID", tmp_path / "machine-id")
    registry.MACHINE_ID.write_text("another\n")
    assert registry.live() == []
    with pytest.raises(UsageError):
        registry.resolve("abcd")
    assert process.poll() is None


def test_live_lists_the_oldest_first(start: Start) -> None:
    for name, since in (("bbbb", 2.0), ("cccc", 3.0), ("aaaa", 1.0)):
        start(name, since=since)
    assert ids() == ["aaaa", "bbbb", "cccc"]


def test_only_the_user_can_read_the_urls(start: Start) -> None:
    previous = os.umask(0)
    try:
        start("abcd")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(registry.folder().stat().st_mode) == 0o700
    assert stat.S_IMODE((registry.folder() / "abcd.json").stat().st_mode) == 0o600


def test_file_of_a_killed_process_is_removed(start: Start) -> None:
    process = start("abcd")
    start("efgh")
    process.kill()
    process.wait()
    assert ids() == ["efgh"]
    assert [path.name for path in registry.folder().iterdir()] == ["efgh.json"]


@pytest.mark.parametrize("word", ["abcd", "ab", "box", "tensorboard-1111", "tensorb"])
def test_resolve_finds_a_tunnel_by_id_host_or_run(start: Start, word: str) -> None:
    start("abcd")
    assert registry.resolve(word).id == "abcd"


def test_resolve_prefers_an_exact_id(start: Start) -> None:
    start("abcd", "efgh")
    start("efgh")
    assert registry.resolve("efgh").id == "efgh"


def test_resolve_refuses_an_ambiguous_word(start: Start) -> None:
    start("abcd", since=1.0)
    start("abef", since=2.0)
    with pytest.raises(UsageError, match="'box' may mean abcd, abef") as raised:
        registry.resolve("box")
    assert raised.value.next_step == "gpurun tunnel --list"
    with pytest.raises(UsageError, match="no tunnel 'x' is open"):
        registry.resolve("x")


def test_close_waits_for_the_process(start: Start) -> None:
    process = start("abcd")
    assert registry.close(registry.resolve("abcd"))
    assert process.wait(60) == 0
    assert list(registry.folder().iterdir()) == []


def test_close_returns_false_when_the_process_stays(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CLOSE_TIMEOUT", 0.3)
    start("abcd", ignores_term=True)
    assert not registry.close(registry.resolve("abcd"))
