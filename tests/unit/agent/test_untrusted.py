"""What a job leaves in the folders that it can write to, in place of what gpurun looks for: links, pipes, folders, endless files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.agent.lifecycle import attempts, preparation
from gpurun.agent.outputs import session_merge
from gpurun.agent.setup import wrapper
from gpurun.agent.state import checkpoints, journal
from tests.support.part import only
from tests.support.run_folder import RunFolder

CONTENT = b"a checkpoint"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "root")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's that no job can reach."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def resumed(folder: RunFolder) -> Path:
    """An attempt goes on from a checkpoint that the job wrote in its container alone. Where it is to be staged."""
    folder.write("m/.bashrc", CONTENT, to="outside")
    folder.end()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    checkpoint = {"path": "/m/.bashrc", "file": "outside/m/.bashrc", "size": len(CONTENT), "sha256": sha256, "step": 1}
    journal.record(folder.paths, "attempt", number=2, why="resume", checkpoint=only(**checkpoint))
    return Path(folder.paths.staged, ".bashrc")


@pytest.mark.parametrize("where", [".gpurun", ".gpurun/resume", ".gpurun/resume/.bashrc", ".gpurun/resume/.bashrc.new"])
def test_stage_writes_through_no_link_of_the_job(folder: RunFolder, mine: Path, where: str) -> None:
    target = resumed(folder)
    place = Path(folder.paths.workspace, where)
    place.parent.mkdir(parents=True, exist_ok=True)
    if "bashrc" in where:
        (mine / ".bashrc").write_text("export A=1")
        place.symlink_to(mine / ".bashrc")
    else:
        place.symlink_to(mine)
    before = {path: path.read_text() for path in mine.rglob("*") if path.is_file()}
    attempts.stage(folder.paths)
    assert {path: path.read_text() for path in mine.rglob("*") if path.is_file()} == before
    assert not target.is_symlink()
    assert target.read_bytes() == CONTENT
    assert os.path.realpath(target).startswith(os.path.realpath(folder.paths.workspace))


def test_folder_for_temporary_files_is_made_through_no_link_of_the_job(folder: RunFolder, mine: Path) -> None:
    Path(folder.paths.workspace, ".gpurun").symlink_to(mine)
    preparation.make_workspace(folder.paths, only(), lambda: None)
    assert list(mine.iterdir()) == []
    assert Path(folder.paths.tmp).is_dir()


def test_home_of_the_jobs_is_made_through_no_link_of_a_job(folder: RunFolder, mine: Path) -> None:
    home = Path(folder.host.home)
    home.parent.mkdir(parents=True)
    home.symlink_to(mine / "new")
    wrapper.make_folders(folder.paths, "vision")
    assert list(mine.iterdir()) == []
    assert home.is_dir()
    assert not home.is_symlink()


def test_new_code_beside_a_session_goes_through_no_link_of_the_session(tmp_path: Path, mine: Path) -> None:
    before, workspace, now = (tmp_path / name for name in ("before", "workspace", "now"))
    for place in (before, workspace, now):
        place.mkdir()
    (now / "lib").mkdir()
    (now / "lib/a.py").write_text("new")
    (workspace / "lib").write_text("a file of the user's")
    (workspace / "lib.from-laptop").symlink_to(mine)
    session_merge.merge(str(before), str(workspace), str(now))
    assert list(mine.iterdir()) == []


def grow(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


MADE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "link to itself": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "endless": grow,
    "no text": lambda path: path.write_bytes(os.urandom(1 << 16)),
    "nested": lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
}


@pytest.mark.parametrize("kind", MADE)
def test_files_of_the_plugin_that_are_none_are_nothing_known(folder: RunFolder, kind: str) -> None:
    run = folder.paths
    for path in (run.ledger, run.progress, run.stopped, run.saving):
        MADE[kind](Path(path))
    assert checkpoints.ledger(run) == []
    assert checkpoints.progress(run) is None
    assert checkpoints.metrics(run) == {}
    assert checkpoints.stopped(run, 1) is None
    assert checkpoints.in_container(run) is False
    assert checkpoints.summary(run) in (None, {"count": 0, "best": None, "last": None})


def test_newest_lines_of_an_endless_ledger_are_read(folder: RunFolder) -> None:
    folder.write("last.ckpt", CONTENT)
    line = {"path": "last.ckpt", "size": len(CONTENT), "complete": True, "step": 1}
    grow(Path(folder.paths.ledger))
    with open(folder.paths.ledger, "ab") as file:
        file.write(b"\n" + json.dumps(line).encode() + b"\n")
    assert [entry["path"] for entry in checkpoints.ledger(folder.paths)] == ["last.ckpt"]


def test_pipe_in_the_place_of_a_checkpoint_holds_nobody(folder: RunFolder) -> None:
    pipe = Path(folder.paths.workspace, "last.ckpt")
    os.mkfifo(pipe)
    assert not checkpoints.is_complete(str(pipe), {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()})
