"""Each run is looked after by itself, under its lock, and what is owed behind an end is done."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal


def test_record_end_full_disk_behind_exit_json_writes_the_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunPaths(str(tmp_path))
    journal.record(run, words.RUNNING, boot_id="b")
    journal.keep_reserve(run)
    real, full = os.write, [True]

    def write(fd: int, data: bytes) -> int:
        if b'"ended"' in data and full:
            full.clear()
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    journal.record_end(run, words.SUCCEEDED, "exit", owes=True, exit_code=0)
    assert [event["event"] for event in journal.read(run)] == ["running", "ended"]
    assert json.loads(Path(run.owed).read_text()) == {"attempt": 1}
