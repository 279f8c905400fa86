"""A line that the host adds to a file of the plugin's, which a job may have replaced by anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpurun.agent import ledger


def test_a_line_behind_a_torn_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints.jsonl"
    file.write_bytes(b'{"path": "a"}\n{"pa')
    ledger.append(str(file), {"path": "b"})
    ledger.append(str(file), {"path": "c"})
    assert [entry["path"] for entry in ledger.lines(str(file))] == ["a", "b", "c"]


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    ledger.append(str(tmp_path / "progress.jsonl"), {"step": 3})
    assert json.loads((tmp_path / "progress.jsonl").read_text()) == {"step": 3}


def test_what_is_no_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            ledger.append(str(tmp_path / name), {"path": "b"})
    assert (tmp_path / "mine").read_text() == "mine"
