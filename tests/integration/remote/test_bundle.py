"""The archive that travels: the same content has the same name, and nothing of this machine goes in."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from gpurun.remote import bundle


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    folder = tmp_path / "agent"
    (folder / "verbs" / "__pycache__").mkdir(parents=True)
    (folder / "__main__.py").write_text("print(1)\n")
    (folder / "verbs" / "ps.py").write_text("pass\n")
    (folder / "verbs" / "__pycache__" / "ps.cpython-311.pyc").write_bytes(b"\0")
    (folder / "wrapper.sh").write_text("#!/bin/sh\n")
    (folder / "wrapper.sh").chmod(0o755)
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM x\n")
    return folder


def test_what_travels(agent: Path, image: Path, tmp_path: Path) -> None:
    packed = bundle.current(agent, image, tmp_path / "cache")
    with tarfile.open(packed.path) as archive:
        modes = {entry.name: entry.mode for entry in archive.getmembers()}
        owners = {(entry.uid, entry.mtime) for entry in archive.getmembers()}
    assert modes == {
        "__main__.py": 0o644,
        "gpurun/__init__.py": 0o644,
        "gpurun/agent/__main__.py": 0o644,
        "gpurun/agent/verbs/ps.py": 0o644,
        "gpurun/agent/wrapper.sh": 0o755,
        "gpurun/agent/image/Dockerfile": 0o644,
    }
    assert owners == {(0, 0)}


def test_the_name_follows_the_content_alone(agent: Path, image: Path, tmp_path: Path) -> None:
    first = bundle.current(agent, image, tmp_path / "cache")
    archive = first.read()
    os.utime(agent / "__main__.py", (1, 1))
    touched = bundle.current(agent, image, tmp_path / "cache")
    assert (touched.hash, touched.read()) == (first.hash, archive)
    (image / "Dockerfile").write_text("FROM y\n")
    assert bundle.current(agent, image, tmp_path / "cache").hash != first.hash


def test_a_second_call_packs_nothing(agent: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bundle.current(agent, image, tmp_path / "cache")
    monkeypatch.setattr(bundle, "_pack", None)
    assert bundle.current(agent, image, tmp_path / "cache") == first


def test_an_archive_that_was_cleaned_away_is_packed_again(agent: Path, image: Path, tmp_path: Path) -> None:
    first = bundle.current(agent, image, tmp_path / "cache")
    first.path.unlink()
    assert bundle.current(agent, image, tmp_path / "cache").path.is_file()


def test_an_archive_that_cannot_be_kept_is_sent_all_the_same(agent: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    kept = bundle.current(agent, image, tmp_path / "another")
    assert bundle.current(agent, image, tmp_path / "cache").read() == kept.read()
