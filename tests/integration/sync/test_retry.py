"""When a transfer is tried again, and when not. A shell plays rsync."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpurun.errors import ContactLost
from gpurun.process import Completed
from gpurun.sync.retry import PATIENCE, Cancelled, keep_on
from gpurun.sync.rsync import Progress
from gpurun.sync.rsync_errors import RsyncError

MOVED = r"printf '\r  1,000,000  10%%    1.00MB/s    0:00:09 \r'"


@dataclass(frozen=True)
class NoHost:
    destination: str = "box"

    def rsh(self) -> str:
        return "ssh"

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None) -> Completed:
        return Completed((), 255, b"", b"")


def play(script: str, folder: Path, cancelled: threading.Event | None = None) -> tuple[list[float], int]:
    """The pauses that were made, and how often `script` ran (it finds how often in $N). It may add to $CAME."""
    came = folder / "came"
    came.touch()
    count = folder / "count"
    slept: list[float] = []
    counted = f"N=$(cat {count} 2>/dev/null || echo 0); N=$((N+1)); echo $N >{count}; CAME={came}; {script}"
    try:
        keep_on(
            NoHost(),
            ["sh", "-c", counted],
            b"",
            _ignore,
            cancelled=cancelled,
            accept=(0, 24),
            staged=lambda: came.stat().st_size,
            sleep=slept.append,
        )
    finally:
        runs = int(count.read_text())
    return slept, runs


def _ignore(seen: Progress) -> None:
    pass


def test_it_goes_on_for_as_long_as_something_moves(tmp_path: Path) -> None:
    slept, runs = play(f"{MOVED}; test $N -gt 20 || exit 30", tmp_path)
    assert (runs, slept) == (21, [0.5] * 20)


def test_it_goes_on_while_bytes_are_kept_that_rsync_did_not_report(tmp_path: Path) -> None:
    """It reports once a second; a line may drop before that."""
    slept, runs = play("echo more >>$CAME; test $N -gt 20 || exit 30", tmp_path)
    assert (runs, slept) == (21, [0.5] * 20)


def test_it_gives_up_when_what_came_comes_again_and_again(tmp_path: Path) -> None:
    with pytest.raises(ContactLost):
        play("case $((N % 2)) in 0) : >$CAME;; 1) echo more >>$CAME;; esac; exit 30", tmp_path)
    assert int((tmp_path / "count").read_text()) == PATIENCE + 1


def test_it_gives_up_when_nothing_moves(tmp_path: Path) -> None:
    with pytest.raises(ContactLost):
        play("exit 12", tmp_path)
    assert int((tmp_path / "count").read_text()) == PATIENCE


@pytest.mark.parametrize("code", [1, 11, 23, 127])
def test_what_trying_again_does_not_mend_ends_it(tmp_path: Path, code: int) -> None:
    with pytest.raises(RsyncError):
        play(f"{MOVED}; exit {code}", tmp_path)
    assert int((tmp_path / "count").read_text()) == 1


def test_files_that_vanished_are_no_failure(tmp_path: Path) -> None:
    assert play("exit 24", tmp_path) == ([], 1)


def test_one_that_is_not_wanted_any_more_ends(tmp_path: Path) -> None:
    over = threading.Event()
    over.set()
    with pytest.raises(Cancelled):
        play(f"{MOVED}; printf '\\r'; exec sleep 60", tmp_path, over)
    with pytest.raises(Cancelled):
        play("exit 20", tmp_path, over)
