"""Where a project begins, what it is called, and what git knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.config.project import Files, Project, find_project, slug


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


def test_settings_come_from_one_file(home: Path) -> None:
    root = make(home / "work", "pyproject.toml", "gpurun.toml")
    (root / "pyproject.toml").write_text("[tool.gpurun]\ngpus = 2\n")
    (root / "gpurun.toml").write_text("gpus = 3\n")
    project = find_project(root)
    assert project.settings() == {"gpus": 3}
    assert project.settings_file == root / "gpurun.toml"
    assert Project(home, "x", "folder", False, Files(home)).settings() == {}
