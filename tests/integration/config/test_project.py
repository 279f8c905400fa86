"""Where a project begins, what it is called, and what git knows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.config.project import PATCH_LIMIT, git_facts
from tests.unit.config.test_project import make

Git = Callable[..., str]


def test_facts_of_a_clean_commit(tmp_path: Path, git: Git) -> None:
    make(tmp_path, "train.py")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "begin")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_facts(tmp_path) == {"commit": commit, "branch": "main", "dirty": False, "patch": None}
    git(tmp_path, "checkout", "-q", "--detach")
    assert git_facts(tmp_path) == {"commit": commit, "branch": None, "dirty": False, "patch": None}


def test_the_patch_brings_the_changes_back(tmp_path: Path, git: Git) -> None:
    repository, other = tmp_path / "repository", tmp_path / "other"
    make(repository, "outside.txt", "part/train.py", "part/weights.bin")
    git(repository, "init", "-q")
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "color.ui", "always")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "begin")
    git(tmp_path, "clone", "-q", str(repository), str(other))
    (repository / "outside.txt").write_text("not of this project")
    (repository / "part/train.py").write_bytes(b"caf\xe9 = 1\n")
    (repository / "part/weights.bin").write_bytes(bytes(range(256)))
    (repository / "part/new.py").touch()
    facts = git_facts(repository / "part")
    assert facts is not None
    assert facts["dirty"]
    assert facts["patch"] is not None
    (tmp_path / "patch").write_bytes(facts["patch"].encode("utf-8", "surrogateescape"))
    git(other, "apply", str(tmp_path / "patch"))
    assert (other / "part/train.py").read_bytes() == b"caf\xe9 = 1\n"
    assert (other / "part/weights.bin").read_bytes() == bytes(range(256))
    assert (other / "outside.txt").read_text() == ""


def test_new_files_alone_make_it_dirty_without_a_patch(tmp_path: Path, git: Git) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    make(tmp_path, "new.py")
    assert git_facts(tmp_path) == {"commit": None, "branch": "main", "dirty": True, "patch": None}


def test_a_huge_patch_is_left_out(tmp_path: Path, git: Git) -> None:
    make(tmp_path, "a.txt")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "begin")
    (tmp_path / "a.txt").write_text("x\n" * PATCH_LIMIT)
    facts = git_facts(tmp_path)
    assert facts is not None
    assert (facts["dirty"], facts["patch"]) == (True, None)


def test_without_git_or_with_a_broken_one(tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_facts(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / ".git/HEAD").write_text("nonsense")
    assert git_facts(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert git_facts(tmp_path) is None
