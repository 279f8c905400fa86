"""The tunnels of this laptop, each held by a process of its own."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from gpurun.errors import UsageError
from gpurun.tunnel import registry
from gpurun.tunnel.registry import Entry, Tunnel
from tests.unit.tunnel.conftest import BOARD, Start


def ids() -> list[str]:
    return [one.id for one in registry.live()]


def test_nothing_was_ever_opened(home: Path) -> None:
    assert registry.live() == []


def test_a_tunnel_is_told_as_its_process_tells_it(start: Start) -> None:
    process = start("abcd", since=5.0, detached=True)
    (found,) = registry.live()
    assert found == Tunnel("abcd", "box", process.pid, 5.0, registry.UP, detached=True, doors=(BOARD,))


def test_a_process_of_another_machine_is_not_ours_to_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is shared, and so are its locks; the number may be another process' here."""
    there = start("abcd")
    monkeypatch.setattr(registry, "MACHINE_ID", tmp_path / "machine-id")
    registry.MACHINE_ID.write_text("another\n")
    assert registry.live() == []
    with pytest.raises(UsageError):
        registry.resolve("abcd")
    assert there.poll() is None


def test_the_oldest_comes_first(start: Start) -> None:
    for name, since in (("bbbb", 2.0), ("cccc", 3.0), ("aaaa", 1.0)):
        start(name, since=since)
    assert ids() == ["aaaa", "bbbb", "cccc"]


def test_addresses_hold_a_token_and_are_for_the_user_alone(start: Start) -> None:
    previous = os.umask(0)
    try:
        start("abcd")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(registry.folder().stat().st_mode) == 0o700
    assert stat.S_IMODE((registry.folder() / "abcd.json").stat().st_mode) == 0o600


def test_a_shorter_text_leaves_nothing_of_the_longer(home: Path) -> None:
    """Told in place, because the lock is the file's."""
    entry = Entry(Tunnel("abcd", "box"))
    entry.tell(doors=(BOARD, BOARD))
    entry.tell(doors=())
    assert registry.live()[0].doors == ()
    entry.close()
    assert registry.live() == []


def test_what_a_killed_process_left_is_removed(start: Start) -> None:
    process = start("abcd")
    start("efgh")
    process.kill()
    process.wait()
    assert ids() == ["efgh"]
    assert [path.name for path in registry.folder().iterdir()] == ["efgh.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "abcd"}', '{"id": "abcd", "host": "box", "doors": [{}]}'])
def test_what_cannot_be_read_is_no_tunnel(home: Path, text: str) -> None:
    """Being written, or of another version."""
    entry = Entry(Tunnel("abcd", "box"))
    other = Entry(Tunnel("efgh", "box"))
    (registry.folder() / "abcd.json").write_text(text)
    assert ids() == ["efgh"]
    assert (registry.folder() / "abcd.json").exists(), "its process lives"
    entry.close()
    other.close()


def test_who_looks_does_not_take_away_what_is_being_opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is there a moment before its lock is."""
    lock, looked = fcntl.flock, list[bool]()

    def look_first(file: Any, how: int) -> None:
        if how == fcntl.LOCK_EX and not looked:
            looked.append(True)
            registry.live()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", look_first)
    entry = Entry(Tunnel("abcd", "box"))
    assert looked
    assert ids() == ["abcd"]
    entry.close()


def test_a_look_does_not_keep_a_tunnel_from_its_lock(home: Path) -> None:
    """Another verb may be looking at what a killed one of the same name left."""
    entry = Entry(Tunnel("abcd", "box"))
    registry.live()
    entry.tell(state=registry.UP)
    assert registry.live()[0].state == registry.UP
    entry.close()


@pytest.mark.parametrize("word", ["abcd", "ab", "box", "tensorboard-1111", "tensorb"])
def test_a_tunnel_is_found_by_its_id_its_host_or_its_run(start: Start, word: str) -> None:
    start("abcd")
    assert registry.resolve(word).id == "abcd"


def test_a_whole_id_comes_before_everything_else(start: Start) -> None:
    start("abcd", "efgh")
    start("efgh")
    assert registry.resolve("efgh").id == "efgh"


def test_what_is_not_clear_is_asked_back(start: Start) -> None:
    start("abcd", since=1.0)
    start("abef", since=2.0)
    with pytest.raises(UsageError, match="'box' may mean abcd, abef") as raised:
        registry.resolve("box")
    assert raised.value.next_step == "gpurun tunnel --list"
    with pytest.raises(UsageError, match="no tunnel 'x' is open"):
        registry.resolve("x")


def test_closing_waits_for_the_process(start: Start) -> None:
    process = start("abcd")
    assert registry.close(registry.resolve("abcd"))
    assert process.wait(20) == 0
    assert list(registry.folder().iterdir()) == []


def test_one_that_does_not_end_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CLOSES_IN", 0.3)
    start("abcd", deaf=True)
    assert not registry.close(registry.resolve("abcd"))
