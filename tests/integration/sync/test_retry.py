"""When a transfer is retried. A shell script runs in place of rsync."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpurun.errors import ContactLost
from gpurun.process import Completed
from gpurun.sync.retry import MAX_IDLE_ATTEMPTS, Cancelled, run_with_retries
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


def run_script(script: str, folder: Path, cancelled: threading.Event | None = None) -> tuple[list[float], int]:
    """Return the pauses, and how often `script` ran ($N in the script). It may add to $RECEIVED."""
    received = folder / "received"
    received.touch()
    count = folder / "count"
    slept: list[float] = []
    counted = f"N=$(cat {count} 2>/dev/null || echo 0); N=$((N+1)); echo $N >{count}; RECEIVED={received}; {script}"
    try:
        run_with_retries(
            NoHost(),
            ["sh", "-c", counted],
            b"",
            _ignore,
            cancelled=cancelled,
            accept=(0, 24),
            staged=lambda: received.stat().st_size,
            sleep=slept.append,
        )
    finally:
        runs = int(count.read_text())
    return slept, runs


def _ignore(progress: Progress) -> None:
    pass


def test_transfer_is_retried_while_bytes_are_reported(tmp_path: Path) -> None:
    slept, runs = run_script(f"{MOVED}; test $N -gt 20 || exit 30", tmp_path)
    assert (runs, slept) == (21, [0.5] * 20)


def test_transfer_is_retried_while_bytes_are_kept(tmp_path: Path) -> None:
    """rsync reports once a second; the connection may drop before that."""
    slept, runs = run_script("echo more >>$RECEIVED; test $N -gt 20 || exit 30", tmp_path)
    assert (runs, slept) == (21, [0.5] * 20)


def test_transfer_is_given_up_when_the_same_bytes_come_again(tmp_path: Path) -> None:
    with pytest.raises(ContactLost):
        run_script("case $((N % 2)) in 0) : >$RECEIVED;; 1) echo more >>$RECEIVED;; esac; exit 30", tmp_path)
    assert int((tmp_path / "count").read_text()) == MAX_IDLE_ATTEMPTS + 1


def test_transfer_is_given_up_when_nothing_comes(tmp_path: Path) -> None:
    with pytest.raises(ContactLost):
        run_script("exit 12", tmp_path)
    assert int((tmp_path / "count").read_text()) == MAX_IDLE_ATTEMPTS


@pytest.mark.parametrize("code", [1, 11, 23, 127])
def test_other_failure_is_not_retried(tmp_path: Path, code: int) -> None:
    with pytest.raises(RsyncError):
        run_script(f"{MOVED}; exit {code}", tmp_path)
    assert int((tmp_path / "count").read_text()) == 1


def test_vanished_files_are_accepted(tmp_path: Path) -> None:
    assert run_script("exit 24", tmp_path) == ([], 1)


def test_cancelled_transfer_ends(tmp_path: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        run_script(f"{MOVED}; printf '\\r'; exec sleep 60", tmp_path, cancelled)
    with pytest.raises(Cancelled):
        run_script("exit 20", tmp_path, cancelled)
