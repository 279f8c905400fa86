"""The digest that laptop and host must agree on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gpurun.agent import manifest
from gpurun.agent.manifest import SECOND, Entry
from gpurun.agent.schema.run import Manifest
from tests.support.hostile import NAMES


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (*NAMES, b"deep/er/file", b"deep.txt"):
        path = os.path.join(os.fsencode(tmp_path), name)
        Path(os.fsdecode(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(name)
    (tmp_path / "link").symlink_to("deep")
    (tmp_path / "empty").mkdir()
    return tmp_path


def made(tree: Path) -> Manifest:
    return manifest.make(manifest.walk(str(tree)))


def test_the_digest_is_fixed() -> None:
    """Laptops and agents of different versions meet: this value may change only with the protocol."""
    entries = [Entry(b"a\xff", "f", 3, 1_700_000_000_123_456_789), Entry(b"b", "l", 1, 0, b"a")]
    said = b"a\xff\0f\x003\x001700000000123456789\0\0" + b"b\0l\x001\x000\0a\0"
    assert manifest.digest(entries) == hashlib.sha256(said).hexdigest()


def test_a_tree_agrees_with_itself(tree: Path) -> None:
    assert manifest.difference(str(tree), made(tree)) is None


def test_modes_empty_folders_and_times_of_links_do_not_matter(tree: Path) -> None:
    wanted = made(tree)
    (tree / "empty").rmdir()
    (tree / "deep.txt").chmod(0o755)
    os.utime(tree / "link", ns=(5, 5), follow_symlinks=False)
    assert manifest.difference(str(tree), wanted) is None


@pytest.mark.parametrize("change", ["content", "time", "link", "missing", "more", "renamed"])
def test_what_matters_is_seen(tree: Path, change: str) -> None:
    wanted = made(tree)
    file, link = tree / "deep.txt", tree / "link"
    if change == "content":
        file.write_bytes(b"longer than before")
    elif change == "time":
        info = file.stat()
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    elif change == "link":
        link.unlink()
        link.symlink_to("depe")
    elif change == "missing":
        file.unlink()
    elif change == "more":
        (tree / "more").touch()
    else:
        file.rename(tree / "deep.tyt")
    assert manifest.difference(str(tree), wanted)


def test_a_disk_that_keeps_whole_seconds_agrees(tree: Path) -> None:
    wanted = made(tree)
    for entry in manifest.walk(str(tree)):
        if entry.kind == "f":
            path = os.path.join(os.fsencode(tree), entry.path)
            os.utime(path, ns=(0, entry.mtime_ns // SECOND * SECOND))
    assert manifest.difference(str(tree), wanted) is None
    (tree / "deep.txt").write_bytes(b"other")
    os.utime(tree / "deep.txt", (0, 0))
    assert manifest.difference(str(tree), wanted)
