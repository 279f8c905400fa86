"""A workspace that goes from one session to the next: real trees, each with what a careless merge breaks on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.outputs import session_merge
from tests.support.hostile import NAMES
from tests.support.run_folder import RunFolder

Tree = dict[str, Any]  # name -> content, Link, or another tree


class Link(str):
    """A symbolic link, and where it leads."""


class Trees:
    def __init__(self, folder: Path) -> None:
        self.before, self.workspace, self.now = (folder / name for name in ("before", "workspace", "now"))

    def merge(self, before: Tree, workspace: Tree, now: Tree) -> list[str]:
        for root, tree in ((self.before, before), (self.workspace, workspace), (self.now, now)):
            shutil.rmtree(root, ignore_errors=True)
            plant(root, tree)
        conflicts = session_merge.merge(*map(str, (self.before, self.workspace, self.now)))
        assert (read(self.before), read(self.now)) == (before, now), "the code itself is only read"
        return conflicts

    @property
    def left(self) -> Tree:
        return read(self.workspace)


def plant(root: Path, tree: Tree) -> None:
    root.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            plant(root / name, content)
        elif isinstance(content, Link):
            (root / name).symlink_to(content)
        else:
            (root / name).write_text(content)


def read(root: Path) -> Tree:
    return {
        path.name: Link(os.readlink(path)) if path.is_symlink() else read(path) if path.is_dir() else path.read_text()
        for path in root.iterdir()
    }


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


@pytest.mark.parametrize(
    ("before", "own", "now", "left", "conflicts"),
    [
        # One letter is one content; None is no file.
        ("a", "a", "a", {"f": "a"}, []),
        ("a", "a", "b", {"f": "b"}, []),
        ("a", "a", None, {}, []),
        (None, None, "b", {"f": "b"}, []),
        ("a", "u", "a", {"f": "u"}, []),
        ("a", "u", None, {"f": "u"}, []),
        (None, "u", None, {"f": "u"}, []),
        ("a", None, "a", {}, []),
        ("a", None, None, {}, []),
        ("a", "b", "b", {"f": "b"}, []),
        (None, "b", "b", {"f": "b"}, []),
        ("a", "u", "b", {"f": "u", "f.from-laptop": "b"}, ["f"]),
        (None, "u", "b", {"f": "u", "f.from-laptop": "b"}, ["f"]),
        ("a", None, "b", {"f": "b"}, ["f"]),
    ],
)
@pytest.mark.parametrize("kind", [str, Link])
def test_every_case_of_one_file(
    trees: Trees,
    kind: type[str],
    before: str | None,
    own: str | None,
    now: str | None,
    left: Tree,
    conflicts: list[str],
) -> None:
    def tree(content: str | None) -> Tree:
        return {"sub": {} if content is None else {"f": kind(content)}}

    assert trees.merge(tree(before), tree(own), tree(now)) == [f"sub/{path}" for path in conflicts]
    assert trees.left.get("sub", {}) == left


def test_what_the_user_made_is_never_looked_at(trees: Trees) -> None:
    own = {"train.py": "1", "best.ckpt": "weights", "runs": {"x": {"log": "y"}}, "big": Link("/nowhere")}
    assert trees.merge({"train.py": "1"}, own, {"train.py": "2"}) == []
    assert trees.left == {**own, "train.py": "2"}


def test_a_link_and_a_file_are_two_contents(trees: Trees) -> None:
    code, linked = {"a": "x", "b": "x"}, {"a": Link("b"), "b": "x"}
    assert trees.merge(code, code, linked) == []
    assert trees.left == linked
    assert trees.merge(linked, linked, code) == []
    assert trees.left == code
    assert trees.merge(code, linked, {"a": "y", "b": "x"}) == ["a"]
    assert trees.left == {**linked, "a.from-laptop": "y"}


def test_a_link_to_a_folder_is_a_link(trees: Trees) -> None:
    code = {"data": {"x": "1"}, "d": Link("data")}
    assert trees.merge(code, code, {"data": {"x": "2"}, "d": Link("elsewhere")}) == []
    assert trees.left == {"data": {"x": "2"}, "d": Link("elsewhere")}


@pytest.mark.parametrize("after", [{"data": {"x": "1", "y": "2"}}, {"data": "a file"}, {}])
@pytest.mark.parametrize("before", [{"data": {"x": "1", "y": "2"}}, {"data": "a file"}, {"data": Link("x")}])
def test_untouched_code_becomes_any_other_code(trees: Trees, before: Tree, after: Tree) -> None:
    """A file makes room for a folder of its name, a folder for a file."""
    assert trees.merge(before, before, after) == []
    assert trees.left == after


def test_folders_are_left_where_the_user_keeps_something(trees: Trees) -> None:
    code = {"a": {"b": {"x": "1"}}, "c": {"x": "1"}}
    assert trees.merge(code, {"a": {"b": {"x": "1"}}, "c": {"x": "1", "mine": "u"}}, {}) == []
    assert trees.left == {"c": {"mine": "u"}}


def test_a_folder_of_the_users_in_the_place_of_a_file_stays(trees: Trees) -> None:
    assert trees.merge({"f": "1"}, {"f": {"mine": "u"}}, {"f": "2"}) == ["f"]
    assert trees.left == {"f": {"mine": "u"}, "f.from-laptop": "2"}
    assert trees.merge({}, {"f": {}}, {"f": "2"}) == ["f"]
    assert trees.left == {"f": {}, "f.from-laptop": "2"}
    assert trees.merge({"f": "1"}, {"f": {"mine": "u"}}, {}) == []
    assert trees.left == {"f": {"mine": "u"}}
    both = {"f": {"mine": "u"}, "f.from-laptop": {"mine too": "u"}}
    assert trees.merge({"f": "1"}, both, {"f": "2"}) == ["f"]
    assert trees.left == both


def test_a_file_of_the_users_in_the_place_of_a_folder_stays(trees: Trees) -> None:
    before, now = {"data": {"x": "1", "y": "1"}}, {"data": {"x": "2", "y": "1"}}
    assert trees.merge(before, {"data": "u"}, now) == ["data/x"]
    assert trees.left == {"data": "u", "data.from-laptop": {"x": "2"}}
    blocked = {"data": "u", "data.from-laptop": "u"}
    assert trees.merge(before, blocked, now) == ["data/x"]
    assert trees.left == blocked


def test_nothing_is_changed_or_removed_through_a_link_of_the_users(trees: Trees, tmp_path: Path) -> None:
    """He moved a folder to the lasting disk and left a link: what lies there is not the workspace's."""
    lasting_disk = tmp_path / "lasting"
    plant(lasting_disk, {"x": "1", "y": "1"})
    before, now = {"data": {"x": "1", "y": "1", "z": "1"}}, {"data": {"x": "2", "z": "1"}}
    assert trees.merge(before, {"data": Link(str(lasting_disk))}, now) == ["data/x"]
    assert read(lasting_disk) == {"x": "1", "y": "1"}
    assert trees.left == {"data": Link(str(lasting_disk)), "data.from-laptop": {"x": "2"}}


def test_a_pipe_in_the_place_of_a_file_is_not_opened(trees: Trees) -> None:
    plant(trees.before, {"f": "1", "gone": "1"})
    plant(trees.now, {"f": "2"})
    trees.workspace.mkdir()
    for name in ("f", "gone"):
        os.mkfifo(trees.workspace / name)
    assert session_merge.merge(*map(str, (trees.before, trees.workspace, trees.now))) == ["f"]
    assert sorted(os.listdir(trees.workspace)) == ["f", "f.from-laptop", "gone"]


def test_hostile_names(trees: Trees) -> None:
    names = [os.fsdecode(name) for name in NAMES]
    before: Tree = {name: {name: "1"} for name in names}
    now: Tree = {name: {name: "2"} for name in names}
    assert trees.merge(before, before, now) == []
    assert trees.left == now
    changed: Tree = {name: {name: "u"} for name in names}
    assert trees.merge(before, changed, now) == sorted(f"{name}/{name}" for name in names)
    assert trees.left == {name: {name: "u", f"{name}.from-laptop": "2"} for name in names}


def test_what_can_be_run_can_be_run_afterwards(trees: Trees) -> None:
    plant(trees.before, {})
    plant(trees.workspace, {})
    plant(trees.now, {"run.sh": "#!/bin/sh"})
    (trees.now / "run.sh").chmod(0o755)
    session_merge.merge(*map(str, (trees.before, trees.workspace, trees.now)))
    assert (trees.workspace / "run.sh").stat().st_mode & 0o777 == 0o755


def sessions(folder: Path) -> tuple[RunFolder, RunFolder]:
    """One that ended, and the one that goes on."""
    earlier, run = RunFolder(folder, "shell-1111"), RunFolder(folder, "shell-2222")
    (run.root / "workspace").rmdir()
    earlier.submit("kept", b"1")
    earlier.submit("both", b"1")
    earlier.write("both", b"user")
    earlier.write("mine", b"user")
    run.write("kept", b"2", to="snapshot")
    run.write("both", b"2", to="snapshot")
    return earlier, run


def test_taking_over_leaves_one_workspace(tmp_path: Path) -> None:
    earlier, run = sessions(tmp_path)
    assert session_merge.take_over(earlier.paths, run.paths) == ["both"]
    assert read(run.root / "workspace") == {"kept": "2", "both": "user", "both.from-laptop": "2", "mine": "user"}
    assert not (earlier.root / "workspace").exists()


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("half", ["1", Link("mine")])
def test_a_crash_anywhere_between_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, half: str
) -> None:
    """The rename of the first file, of the second, of the workspace itself fails; a half-made file lies about."""
    earlier, run = sessions(tmp_path)
    left = iter(range(1, 10))

    def failing(name: str) -> None:
        real = getattr(os, name)

        def rename(*paths: str) -> None:
            if next(left) == at:
                raise InterruptedError
            real(*paths)

        monkeypatch.setattr(os, name, rename)

    with monkeypatch.context():
        failing("replace")
        failing("rename")
        with pytest.raises(InterruptedError):
            session_merge.take_over(earlier.paths, run.paths)
        monkeypatch.undo()
    stray = earlier.root / "workspace/kept.gpurun-new"
    stray.unlink(missing_ok=True)
    plant(tmp_path / "stray", {"half": half})
    (tmp_path / "stray/half").rename(stray)
    session_merge.take_over(earlier.paths, run.paths)
    found = read(run.root / "workspace")
    found.pop("kept.gpurun-new", None)
    assert found == {"kept": "2", "both": "user", "both.from-laptop": "2", "mine": "user"}


@pytest.mark.parametrize(
    ("before", "own", "now", "left"),
    [
        (0o644, 0o644, 0o755, 0o755),  # chmod +x on the laptop
        (0o755, 0o755, 0o644, 0o644),
        (0o644, 0o755, 0o644, 0o755),  # there
        (0o644, 0o700, 0o755, 0o700),  # on both sides
    ],
)
@pytest.mark.parametrize("content", ["as it was", "changed there"])
def test_a_mode_follows_the_code_too(trees: Trees, before: int, own: int, now: int, left: int, content: str) -> None:
    for root, text, mode in (
        (trees.before, "as it was", before),
        (trees.workspace, content, own),
        (trees.now, "as it was", now),
    ):
        plant(root, {"run.sh": text})
        (root / "run.sh").chmod(mode)
    assert session_merge.merge(*map(str, (trees.before, trees.workspace, trees.now))) == []
    assert (trees.workspace / "run.sh").stat().st_mode & 0o7777 == left
    assert (trees.now / "run.sh").stat().st_mode & 0o7777 == now


def test_no_mode_goes_through_a_link(trees: Trees, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    plant(elsewhere, {"run.sh": "as it was"})
    (elsewhere / "run.sh").chmod(0o644)
    plant(trees.before, {"bin": {"run.sh": "as it was"}})
    plant(trees.workspace, {"bin": Link(elsewhere)})
    plant(trees.now, {"bin": {"run.sh": "as it was"}})
    (trees.now / "bin/run.sh").chmod(0o755)
    session_merge.merge(*map(str, (trees.before, trees.workspace, trees.now)))
    assert (elsewhere / "run.sh").stat().st_mode & 0o7777 == 0o644
