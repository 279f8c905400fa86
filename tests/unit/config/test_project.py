"""Where a project begins, what it is called, and what git knows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.config.project import PATCH_LIMIT, Files, Project, find_project, git_facts, slug

Git = Callable[..., str]


def make(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def root_of(start: Path) -> tuple[Path, str]:
    found = find_project(start)
    return found.root, found.marker


def test_the_nearest_gpurun_toml_comes_first(home: Path) -> None:
    work = make(home / "work", "gpurun.toml", "lib/pyproject.toml", "lib/.git/HEAD", "lib/src/train.py")
    assert root_of(work / "lib/src/train.py") == (work, "gpurun.toml")
    make(work, "lib/src/gpurun.toml")
    assert root_of(work / "lib/src") == (work / "lib/src", "gpurun.toml")


def test_then_a_pyproject_with_our_table(home: Path) -> None:
    work = make(home / "work", "lib/.git/HEAD", "lib/a/b.py")
    (work / "pyproject.toml").write_text("[tool.gpurun]\ngpus = 2\n")
    assert root_of(work / "lib/a") == (work, "pyproject.toml")
    assert find_project(work / "lib").settings() == {"gpus": 2}


def test_then_the_nearest_of_pyproject_and_git(home: Path) -> None:
    make(home, "mono/.git/HEAD", "mono/part/pyproject.toml", "mono/part/src/a.py", "mono/other/b.py")
    assert root_of(home / "mono/part/src") == (home / "mono/part", "pyproject.toml")
    assert root_of(home / "mono/other/b.py") == (home / "mono", "git")


def test_a_worktree_has_a_file_named_git(home: Path) -> None:
    make(home, "tree/.git", "tree/a/b.py")
    assert root_of(home / "tree/a") == (home / "tree", "git")


def test_the_home_is_never_taken_silently(home: Path) -> None:
    make(home, ".git/HEAD", "pyproject.toml", "loose/train.py")
    assert root_of(home / "loose/train.py") == (home / "loose", "folder")
    make(home, "gpurun.toml")
    assert root_of(home / "loose/train.py") == (home / "loose", "folder")


def test_the_working_directory_is_the_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(home, "work/gpurun.toml", "work/deep/a.py")
    monkeypatch.chdir(home / "work/deep")
    assert find_project().root == home / "work"


@pytest.mark.parametrize(
    ("gpurun", "pyproject", "name"),
    [
        ('name = "My Vision!"', '[project]\nname = "other"', "my-vision"),
        ("", '[tool.gpurun]\nname = "table"\n[project]\nname = "other"', "table"),
        ("", '[project]\nname = "Other_Thing"', "other-thing"),
        ("", "", "some-folder"),
        ("name = 3", "", "some-folder"),
        ("this is no TOML", "", "some-folder"),
    ],
)
def test_the_name(home: Path, gpurun: str, pyproject: str, name: str) -> None:
    root = make(home / "Some Folder", "gpurun.toml", "pyproject.toml")
    (root / "gpurun.toml").write_text(gpurun)
    (root / "pyproject.toml").write_text(pyproject)
    assert find_project(root).name == name


def test_a_folder_without_a_usable_name(home: Path) -> None:
    assert find_project(make(home / "数据", "train.py")).name == "project"


def test_slug_is_safe_and_short() -> None:
    assert slug("../Über $(x)\n") == "ber-x"
    assert slug("a" * 60 + "-b") == "a" * 40
    assert slug("-" * 5) == ""


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


def test_settings_come_from_one_file(home: Path) -> None:
    root = make(home / "work", "pyproject.toml", "gpurun.toml")
    (root / "pyproject.toml").write_text("[tool.gpurun]\ngpus = 2\n")
    (root / "gpurun.toml").write_text("gpus = 3\n")
    project = find_project(root)
    assert project.settings() == {"gpus": 3}
    assert project.settings_file == root / "gpurun.toml"
    assert Project(home, "x", "folder", False, Files(home)).settings() == {}
