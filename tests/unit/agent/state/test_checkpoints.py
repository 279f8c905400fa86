"""The ledger as a job writes it, and all that a job can write instead."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.lifecycle import records
from gpurun.agent.state import checkpoints
from tests.support.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, project={"name": "vision"})


def note(run: RunFolder, path: str, content: bytes = b"weights", **told: Any) -> Any:
    """A line of the ledger for a checkpoint with this content, whether it is there or not."""
    entry = {
        "t": 100.0, "attempt": 1, "path": path, "epoch": 0, "step": 10, "monitor": None, "mode": None, "value": None,
        "best": False, "last": False, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        "mtime_ns": 0, "complete": True, **told,
    }  # fmt: skip
    add(run, json.dumps(entry).encode() + b"\n")
    return entry


def add(run: RunFolder, line: bytes) -> None:
    with open(run.paths.ledger, "ab") as file:
        file.write(line)


def save(run: RunFolder, path: str, content: bytes = b"weights", **told: Any) -> None:
    run.write(path, content)
    note(run, path, content, **told)


def paths(run: RunFolder) -> list[str]:
    return [entry["path"] for entry in checkpoints.ledger(run.paths)]


def test_newest_line_of_a_path_is_what_holds(run: RunFolder) -> None:
    save(run, "last.ckpt", b"old", step=10)
    save(run, "last.ckpt", b"newer", step=20)
    (entry,) = checkpoints.ledger(run.paths)
    assert (entry["step"], entry["file"]) == (20, str(run.root / "workspace/last.ckpt"))


def test_only_what_is_there_whole_counts(run: RunFolder) -> None:
    save(run, "good.ckpt")
    save(run, "short.ckpt")
    run.write("short.ckpt", b"weig")
    note(run, "gone.ckpt")
    save(run, "removed.ckpt")
    add(run, b'{"t": 101, "path": "removed.ckpt", "removed": true}\n')
    save(run, "half.ckpt", complete=False)
    run.write("torn.ckpt")
    add(run, b'{"t": 102, "path": "torn.ckpt", "complete": true, "size": 1}')
    assert paths(run) == ["good.ckpt"]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b"[]",
        b"{}",
        b'{"path": 3}',
        b'{"path": ""}',
        b'{"path": "a\\u0000b", "complete": true}',
        b'{"path": "a\\ud800b", "complete": true}',
        b"[" * 100_000,
    ],
)
def test_lines_that_are_no_entries_are_passed_over(run: RunFolder, line: bytes) -> None:
    add(run, line + b"\n")
    save(run, "good.ckpt")
    assert paths(run) == ["good.ckpt"]


def test_values_of_the_wrong_kind_are_not_passed_on(run: RunFolder) -> None:
    huge = 10**400
    save(run, "a.ckpt", step=huge, t=huge, epoch={"no": 1}, value="low", mode=7, best=1, monitor=["x"])
    save(run, "b.ckpt", step=3, t="now", value=float("inf"), mode="min")
    told: Any = records.record_of(run.paths)["checkpoints"]
    assert (told["last"]["path"], told["last"]["t"], told["best"]) == ("b.ckpt", None, None)
    (a, _) = checkpoints.ledger(run.paths)
    brief = checkpoints.brief(a) or {}
    assert {key for key, value in brief.items() if value is not None} == {"path", "size", "sha256", "attempt"}


def test_a_ledger_cannot_name_files_that_are_not_the_runs(run: RunFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")
    (run.root / "workspace/link.ckpt").symlink_to(secret)
    for path in ("../../../secret", str(secret), "link.ckpt", "/workspace/../../secret", "..", "/"):
        note(run, path)
    Path(run.paths.job).write_text(json.dumps({"host": {"runtime": "docker"}}))
    assert paths(run) == []


def test_link_inside_the_workspace_is_followed(run: RunFolder) -> None:
    save(run, "epoch=1.ckpt")
    (run.root / "workspace/last.ckpt").symlink_to("epoch=1.ckpt")
    note(run, "last.ckpt")
    assert paths(run) == ["epoch=1.ckpt", "last.ckpt"]


def test_absolute_paths_are_the_containers(tmp_path: Path) -> None:
    run = RunFolder(
        tmp_path,
        project={"name": "vision"},
        host={"runtime": "docker"},
        mounts=[{"source": str(tmp_path / "scans"), "target": "/gpurun/data/scans"}],
    )
    places = {
        "/workspace/a.ckpt": run.root / "workspace/a.ckpt",
        "/gpurun/data/b.ckpt": tmp_path / "data/vision/b.ckpt",
        "/gpurun/data/scans/c.ckpt": tmp_path / "scans/c.ckpt",
        "/tmp/d.ckpt": run.root / "outside/tmp/d.ckpt",
    }
    for path, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"weights")
        note(run, path)
    assert {entry["path"]: entry["file"] for entry in checkpoints.ledger(run.paths)} == {
        path: str(place) for path, place in places.items()
    }


def test_without_a_container_an_absolute_path_is_the_hosts(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"weights")
    note(run, str(tmp_path / "x.ckpt"))
    assert paths(run) == [str(tmp_path / "x.ckpt")]


def test_content_must_fit_for_a_resume(run: RunFolder) -> None:
    save(run, "last.ckpt")
    (entry,) = checkpoints.ledger(run.paths)
    assert checkpoints.is_complete(entry["file"], entry)
    run.write("last.ckpt", b"Weights")
    assert not checkpoints.is_complete(entry["file"], entry)
    Path(entry["file"]).unlink()
    assert not checkpoints.is_complete(entry["file"], entry)


def test_last_is_the_furthest_and_then_the_newest() -> None:
    entries = [{"path": "a", "step": 5, "t": 9}, {"path": "b", "step": 7, "t": 1}, {"path": "c", "step": 7, "t": 2}]
    assert (checkpoints.last(entries) or {})["path"] == "c"
    assert [entry["path"] for entry in checkpoints.newest_first(entries)] == ["c", "b", "a"]
    assert checkpoints.last([]) is None


def test_best_is_what_the_job_calls_so_or_the_best_value() -> None:
    entries = [
        {"path": "a", "step": 1, "t": 1, "value": 0.5, "mode": "min"},
        {"path": "b", "step": 2, "t": 2, "value": 0.3, "mode": "min"},
        {"path": "c", "step": 3, "t": 3, "value": float("nan"), "mode": "min"},
    ]
    assert (checkpoints.best(entries) or {})["path"] == "b"
    assert (checkpoints.best([{**entry, "mode": "max"} for entry in entries]) or {})["path"] == "a"
    assert (checkpoints.best([*entries, {"path": "d", "best": True}]) or {})["path"] == "d"
    assert checkpoints.best([{"path": "e", "step": 1}]) is None


def test_record_tells_of_checkpoints_and_progress(run: RunFolder) -> None:
    told: Any = records.record_of(run.paths)
    assert (told["checkpoints"], told["progress"]) == (None, None)
    save(run, "best.ckpt", best=True, step=1)
    save(run, "last.ckpt", last=True, step=2)
    run.write("progress.jsonl", b'{"step": 1}\n{"step": 2}\n{"st', to="out")
    told = records.record_of(run.paths)
    assert told["progress"] == {"step": 2}
    assert (told["checkpoints"]["count"], told["checkpoints"]["best"]["path"]) == (2, "best.ckpt")
    assert told["checkpoints"]["last"]["step"] == 2


def summary(run: RunFolder) -> Any:
    return records.record_of(run.paths)["checkpoints"]


def test_ledger_of_an_ended_run_is_not_read_again(run: RunFolder) -> None:
    """Thousands of runs may be listed."""
    save(run, "last.ckpt", step=3)
    run.end()
    checkpoints.note_summary(run.paths)
    (run.root / "workspace/last.ckpt").unlink()
    assert summary(run)["last"]["step"] == 3
    save(run, "late.ckpt", step=4)
    assert summary(run)["last"]["step"] == 4


def test_metrics_are_the_last_values_of_each(run: RunFolder) -> None:
    assert checkpoints.metrics(run.paths) == {}
    lines = (b'{"metrics": {"loss": 2.0, "acc": 0.1}}', b'{"metrics": {"loss": 1.0}}', b'{"metrics": null}', b'"x"')
    Path(run.paths.progress).write_bytes(b"\n".join(lines) + b'\n{"metrics": {"loss": 0')
    assert checkpoints.metrics(run.paths) == {"loss": 1.0, "acc": 0.1}
