"""The registry of open tunnels, each of a process of its own."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.tunnel import registry
from gpurun.tunnel.registry import Entry, Tunnel
from tests.integration.tunnel.conftest import BOARD


def ids() -> list[str]:
    return [tunnel.id for tunnel in registry.live()]


def test_live_without_a_registry_folder_is_empty(home: Path) -> None:
    assert registry.live() == []


def test_update_with_a_shorter_text_leaves_nothing_of_the_longer(home: Path) -> None:
    """The file is written in place, because the lock is on the file."""
    entry = Entry(Tunnel("abcd", "box"))
    entry.update(listeners=(BOARD, BOARD))
    entry.update(listeners=())
    assert registry.live()[0].listeners == ()
    entry.close()
    assert registry.live() == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"id": "abcd"}', '{"id": "abcd", "host": "box", "state": "up", "listeners": [{}]}']
)
def test_unreadable_file_is_skipped(home: Path, text: str) -> None:
    """It is being written, or another version wrote it."""
    entry = Entry(Tunnel("abcd", "box"))
    other = Entry(Tunnel("efgh", "box"))
    (registry.folder() / "abcd.json").write_text(text)
    assert ids() == ["efgh"]
    assert (registry.folder() / "abcd.json").exists(), "its process lives"
    entry.close()
    other.close()


def test_file_of_an_earlier_version_is_read(home: Path) -> None:
    """A tunnel that the user opened before an update."""
    entry = Entry(Tunnel("abcd", "box"))
    listener = {"name": "TensorBoard", "url": BOARD.url, "port": 12345, "run": "tensorboard-1111"}
    document = {"id": "abcd", "host": "box", "pid": 42, "since": 1.0, "detached": True}
    for state, doors, expected in (
        ("up", [listener], registry.UP),
        ("healing", [], registry.RECONNECTING),
        ("wants a login", [listener], registry.LOGIN_NEEDED),
    ):
        (registry.folder() / "abcd.json").write_text(json.dumps({**document, "state": state, "doors": doors}))
        (tunnel,) = registry.live()
        assert (tunnel.id, tunnel.state, tunnel.listeners) == ("abcd", expected, (BOARD,) * len(doors))
    entry.close()


def test_live_keeps_a_file_that_is_not_locked_yet(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file exists a moment before its lock."""
    lock, has_read = fcntl.flock, list[bool]()

    def read_first(file: Any, how: int) -> None:
        if how == fcntl.LOCK_EX and not has_read:
            has_read.append(True)
            registry.live()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", read_first)
    entry = Entry(Tunnel("abcd", "box"))
    assert has_read
    assert ids() == ["abcd"]
    entry.close()


def test_live_does_not_keep_the_lock(home: Path) -> None:
    """Another command may read the file of a killed process of the same name."""
    entry = Entry(Tunnel("abcd", "box"))
    registry.live()
    entry.update(state=registry.UP)
    assert registry.live()[0].state == registry.UP
    entry.close()
