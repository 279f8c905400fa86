"""What a TensorBoard is shown of the runs of its project, and of nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.setup import boards, secret_files, wrapper
from gpurun.agent.setup.boards import Board
from tests.support.run_folder import RunFolder

EVENTS = "logs/version_0/events.out.tfevents.1.box"


class Runs:
    """The runs of a host, and a TensorBoard over those of the project digits."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self.folder = folder
        self.service = self.add("tensorboard-5555", service={"kind": "tensorboard"})
        self.board = Board(self.service.paths, "digits", **told)

    def add(self, run: str, project: str = "digits", **job: Any) -> RunFolder:
        return RunFolder(self.folder, run, project={"name": project}, **job)

    def shown(self) -> dict[str, bytes]:
        """The files of the board, after a look."""
        self.board.refresh()
        top = Path(self.service.paths.board)
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_board_shows_event_files_of_every_run_of_the_project_and_no_other(runs: Runs) -> None:
    runs.add("train-1111").write(EVENTS, b"one")
    runs.add("shell-3333", service={"kind": "shell"}).write(EVENTS, b"three")
    runs.add("other-4444", "another").write(EVENTS)
    runs.service.write(EVENTS)
    (runs.folder / "runs/.new-6666").mkdir()
    (runs.folder / "runs/torn-7777").mkdir()
    (runs.folder / "runs/torn-7777/job.json").write_text('{"project": {"na')
    assert runs.shown() == {f"train-1111/{EVENTS}": b"one", f"shell-3333/{EVENTS}": b"three"}


def test_board_holds_no_secret_no_code_and_no_checkpoint(runs: Runs) -> None:
    run = runs.add("train-1111")
    wrapper.write_env(run.paths, {"TOKEN": "hunter2"})
    run.write("env", b"export OLD=hunter2\n", to="ro")
    run.submit("train.py", b"code = 'hunter2'")
    run.write("logs/version_0/last.ckpt", b"hunter2")
    run.write(EVENTS)
    assert list(runs.shown()) == [f"train-1111/{EVENTS}"]


def test_board_follows_what_a_job_appends_and_leaves_its_files_as_they_are(runs: Runs) -> None:
    """A fetch compares ctimes: a look must not make a run seem written to."""
    file = runs.add("train-1111").write(EVENTS, b"one")
    before = file.stat()
    assert runs.shown()[f"train-1111/{EVENTS}"] == b"one"
    inode = Path(runs.service.paths.board, "train-1111", EVENTS).stat().st_ino
    assert (file.stat().st_ctime_ns, file.stat().st_nlink) == (before.st_ctime_ns, 1)
    with file.open("ab") as log:
        log.write(b" two")
    assert runs.shown()[f"train-1111/{EVENTS}"] == b"one two"
    assert Path(runs.service.paths.board, "train-1111", EVENTS).stat().st_ino == inode, "TensorBoard has it open"


def test_board_of_a_new_supervisor_goes_on_with_what_is_there(runs: Runs) -> None:
    file = runs.add("train-1111").write(EVENTS, b"one")
    runs.shown()
    with file.open("ab") as log:
        log.write(b" two")
    runs.board = Board(runs.service.paths, "digits")
    assert runs.shown()[f"train-1111/{EVENTS}"] == b"one two"


def test_board_shows_a_projector_file_that_was_rewritten(runs: Runs) -> None:
    run = runs.add("train-1111")
    run.write("projector_config.pbtxt", b"one", at=1000.0)
    assert runs.shown() == {"train-1111/projector_config.pbtxt": b"one"}
    run.write("projector_config.pbtxt", b"two", at=2000.0)
    assert runs.shown() == {"train-1111/projector_config.pbtxt": b"two"}


def test_board_leaves_room_on_the_disk(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_LITTLE", 1 << 62)
    runs.add("train-1111").write(EVENTS, b"one")
    assert runs.shown() == {f"train-1111/{EVENTS}": b""}


def test_board_follows_no_link(runs: Runs) -> None:
    run = runs.add("train-1111")
    outside = runs.folder / "private"
    outside.mkdir()
    (outside / "a.tfevents").write_bytes(b"private")
    (run.root / "workspace/logs").symlink_to(outside)
    (run.root / "workspace/b.tfevents").symlink_to(outside / "a.tfevents")
    os.mkfifo(run.root / "workspace/c.tfevents")
    assert runs.shown() == {}


def test_board_shows_the_file_that_took_another_ones_name(runs: Runs) -> None:
    file = runs.add("train-1111").write(EVENTS, b"one")
    runs.shown()
    other = file.with_name("other")
    other.write_bytes(b"two, longer")
    other.rename(file)
    assert runs.shown() == {f"train-1111/{EVENTS}": b"two, longer"}


def test_runs_and_files_come_and_go(runs: Runs) -> None:
    first = runs.add("train-1111")
    first.write(EVENTS)
    assert list(runs.shown()) == [f"train-1111/{EVENTS}"]
    runs.add("train-2222").write(EVENTS)
    (first.root / "workspace" / EVENTS).unlink()
    assert list(runs.shown()) == [f"train-2222/{EVENTS}"]
    (runs.folder / "runs/train-2222").rename(runs.folder / "removed")
    first.write("later.tfevents")
    assert list(runs.shown()) == ["train-1111/later.tfevents"]


def test_ended_run_that_is_resumed_is_shown_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.add("train-1111")
    run.write(EVENTS)
    run.end()
    assert list(runs.shown()) == [f"train-1111/{EVENTS}"]
    run.write("a.tfevents")
    assert len(runs.shown()) == 1, "an ended run is not walked at each look"
    Path(run.paths.exit).unlink()
    assert len(runs.shown()) == 2
    Path(run.paths.exit).write_text("{}")
    runs.shown()
    run.write("b.tfevents")
    monkeypatch.setattr(boards, "ENDED_EVERY", 0.0)
    assert len(runs.shown()) == 3, "somebody had a shell in it"


def test_run_without_a_workspace_waits_for_it(runs: Runs) -> None:
    run = runs.add("train-1111")
    (run.root / "workspace").rmdir()
    assert runs.shown() == {}
    run.write(EVENTS)
    assert list(runs.shown()) == [f"train-1111/{EVENTS}"]


def test_board_of_one_run_shows_that_run_alone(tmp_path: Path) -> None:
    runs = Runs(tmp_path, only="other-2222")
    runs.add("train-1111").write(EVENTS)
    assert runs.shown() == {}
    runs.add("other-2222", "another").write(EVENTS)
    assert list(runs.shown()) == [f"other-2222/{EVENTS}"]


def test_board_is_kept_while_the_service_runs_and_cleared_at_its_end(runs: Runs) -> None:
    runs.add("train-1111").write(EVENTS)
    paths = runs.service.paths
    job: Any = {"service": {"kind": "tensorboard", "run": None}, "project": {"name": "digits"}}
    with boards.kept(paths, job):
        pass  # at least one look is taken
    assert os.listdir(paths.board) == ["train-1111"]
    boards.clear(paths)
    assert os.listdir(paths.board) == []


def test_board_that_a_look_has_filled_behind_the_end_is_cleared(runs: Runs) -> None:
    runs.add("train-1111").write(EVENTS)
    paths = runs.service.paths
    job: Any = {"service": {"kind": "tensorboard", "run": None}, "project": {"name": "digits"}}
    with boards.kept(paths, job):
        boards.clear(paths)
        runs.service.end()  # the thread's look comes behind it
    assert os.listdir(paths.board) == []


def test_copies_of_other_runs_that_an_older_gpurun_made_are_removed_with_the_secrets(runs: Runs) -> None:
    copies = Path(runs.service.paths.outside + runs.service.host.runs, "train-1111/ro")
    copies.mkdir(parents=True)
    (copies / "env").write_text("export TOKEN=hunter2\n")
    mine = Path(runs.service.paths.outside, "opt/mine")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    secret_files.wipe(runs.service.paths)
    assert not copies.exists()
    assert mine.exists()


def test_what_a_job_wrote_at_such_a_path_itself_is_kept(runs: Runs) -> None:
    run = runs.add("train-1111")
    mine = Path(run.paths.outside + run.host.runs, "mine")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    secret_files.wipe(run.paths)
    assert mine.exists()
