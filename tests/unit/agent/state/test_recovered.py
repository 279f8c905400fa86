"""What a job saved in the second before it was killed: files as torch writes them, whole and half written."""

from __future__ import annotations

import io
import json
import pickle
import time
import zipfile
from pathlib import Path

import pytest

from gpurun.agent.state import checkpoints, journal, recovered
from tests.support.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path, project={"name": "vision"})
    Path(run.paths.progress).write_text(json.dumps({"t": 1.0, "attempt": 1, "step": 1}) + "\n")
    Path(run.paths.ledger).write_bytes(b"")
    return run


def saved(step: int, packing: int = zipfile.ZIP_STORED) -> bytes:
    """As `torch.save` lays a checkpoint of Lightning out."""
    told = {"epoch": 3, "global_step": step, "state_dict": {}, "optimizer_states": []}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", packing) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(told, protocol=2))
        archive.writestr("archive/data/0", bytes(5000))
    return content.getvalue()


def listed(run: RunFolder) -> list[tuple[str, int | None]]:
    recovered.list_new(run.paths)
    return [(entry["path"], entry["step"]) for entry in checkpoints.ledger(run.paths)]


def test_a_whole_one_comes_into_the_ledger_once_as_it_is(run: RunFolder) -> None:
    run.write("checkpoints/last.ckpt", saved(70), at=time.time())
    assert listed(run) == [("checkpoints/last.ckpt", 70)]
    (entry,) = checkpoints.ledger(run.paths)
    assert checkpoints.is_complete(entry["file"], entry)
    assert (entry["epoch"], entry["attempt"], entry["best"]) == (3, journal.fold(run.paths).attempt, False)
    lines = Path(run.paths.ledger).read_bytes()
    assert listed(run) == [("checkpoints/last.ckpt", 70)]
    assert Path(run.paths.ledger).read_bytes() == lines


@pytest.mark.parametrize("kept", [10, 3000, 5000, -40, -1])
def test_a_half_written_one_is_never_taken(run: RunFolder, kept: int) -> None:
    run.write("last.ckpt", saved(70)[:kept], at=time.time())
    assert listed(run) == []


def test_one_whose_middle_is_lost_is_not_taken(run: RunFolder) -> None:
    content = saved(70)
    at = content.index(b"state_dict")
    run.write("last.ckpt", content[:at] + bytes(10) + content[at + 10 :], at=time.time())
    assert listed(run) == []


def test_one_that_unpacks_to_more_than_it_is_is_not_taken(run: RunFolder) -> None:
    run.write("last.ckpt", saved(70, zipfile.ZIP_DEFLATED), at=time.time())
    assert listed(run) == []


def test_what_came_with_the_project_or_lies_elsewhere_is_not_taken(run: RunFolder, tmp_path: Path) -> None:
    run.write("pretrained.ckpt", saved(70))
    (tmp_path / "elsewhere.ckpt").write_bytes(saved(80))
    (run.root / "workspace/link.ckpt").symlink_to(tmp_path / "elsewhere.ckpt")
    assert listed(run) == []


def test_a_pickle_that_is_none_ends_nothing(run: RunFolder) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\xff no pickle")
    run.write("odd.ckpt", content.getvalue(), at=time.time())
    run.write("last.ckpt", saved(70), at=time.time())
    assert listed(run) == [("last.ckpt", 70)]


def test_a_line_that_the_kill_has_torn_does_not_spoil_it(run: RunFolder) -> None:
    Path(run.paths.ledger).write_bytes(b'{"t": 1.0, "path": "la')
    run.write("last.ckpt", saved(70), at=time.time())
    assert listed(run) == [("last.ckpt", 70)]


def test_a_script_without_the_plugin_is_left_alone(run: RunFolder) -> None:
    Path(run.paths.progress).unlink()
    run.write("last.ckpt", saved(70), at=time.time())
    assert listed(run) == []
