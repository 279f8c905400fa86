"""Which evidence says that a file is being written."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from gpurun.agent.state import completeness


def a_zip(comment: bytes = b"") -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("data.pkl", b"weights" * 1000)
        archive.comment = comment
    return memory.getvalue()


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (a_zip(), True),
        (a_zip(b"made by a trainer"), True),
        (a_zip(completeness.ZIP_END), True),  # its comment looks like an end
        (a_zip()[:-1], False),
        (a_zip()[:-22], False),
        (a_zip()[:4], False),
        (b"", False),
    ],
)
def test_a_zip_tells_whether_it_is_finished(tmp_path: Path, content: bytes, whole: bool) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        assert completeness.has_zip_end(file, len(content)) is whole


def test_young_is_what_changed_just_now_by_either_clock(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    now = path.stat().st_mtime
    assert completeness.is_young(path.stat(), now + 1)
    assert not completeness.is_young(path.stat(), now + 5)
    os.utime(path, (now - 900, now - 900))  # set back by its writer
    assert completeness.is_young(path.stat(), path.stat().st_ctime + 0.05)
