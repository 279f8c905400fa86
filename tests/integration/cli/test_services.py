"""TensorBoards, Jupyters and shells are no work: what a command without RUN means, and what is fetched, asked about and removed.

The real agent answers on this machine.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest

from gpurun.cli.app import main
from gpurun.cli.fetch import _unfetched
from gpurun.commands import prune, runs, stop, unfetched
from gpurun.errors import UsageError
from gpurun.store import run_names, run_store
from tests.integration.cli.test_ps import home
from tests.support.part import part
from tests.support.run_folder import RunFolder

__all__ = ["home"]

NUMBER = iter(range(1000, 9999))


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = home / "vision"
    folder.mkdir()
    (folder / "gpurun.toml").touch()
    monkeypatch.chdir(folder)
    return folder


def begun(project: Path, name: str, **job: Any) -> RunFolder:
    """A run on the host `box`; a service unless it is called `train`."""
    number = next(NUMBER)
    service = None if name == "train" else {"kind": name, "title": name, "idle": 7200, "run": None}
    told = {"name": name, "service": service, "owner": getpass.getuser(), "created": float(number), **job}
    run = RunFolder(project.parent / ".gpurun", f"{name}-{number}", **told)
    run_store.add(part({**told, "id": run.paths.id, "project": {"name": "vision", "root": str(project)}}), "box")
    runs.look([entry for entry in run_store.all_runs() if entry.id == run.paths.id])
    return run


def test_command_without_a_run_means_no_service(project: Path) -> None:
    job = begun(project, "train")
    for kind in ("tensorboard", "jupyter", "shell"):
        begun(project, kind).write("notes.txt")
    assert [entry.id for entry in runs.resolve_all(None)] == [job.paths.id]
    assert stop.only_live_run().id == job.paths.id
    job.end()
    runs.look(run_store.all_runs())
    with pytest.raises(UsageError) as refused:
        stop.only_live_run()
    assert "gpurun stop shell-" in refused.value.next_step


def test_fetch_all_brings_sessions_that_somebody_wrote_files_in_and_no_other_service(project: Path) -> None:
    job = begun(project, "train")
    used = [begun(project, kind) for kind in ("jupyter", "shell", "jupyter")]
    for run in used:
        run.write("notes.txt")
        run.write("log", b"listens", to="out")
    for kind in ("tensorboard", "jupyter", "shell", "gpucheck"):
        unused = begun(project, kind)
        unused.write("log", b"listens", to="out")
        unused.end()
    begun(project, "tensorboard").write("events.out", b"x", to="board")
    used[0].end()
    found = [entry.id for entry in _unfetched()]
    assert sorted(found) == sorted(run.paths.id for run in (job, *used))


@pytest.mark.parametrize(
    ("kind", "file", "asks"),
    [
        ("tensorboard", "scratch", False),
        ("gpucheck", "result.json", False),
        ("jupyter", None, False),
        ("shell", None, False),
        ("jupyter", "train.ipynb", True),
        ("shell", "notes.txt", True),
    ],
)
def test_rm_and_prune_ask_about_a_service_only_when_somebody_wrote_files_in_it(
    project: Path, kind: str, file: str | None, asks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(project, kind)
    run.write("log", b"listens", to="out")
    if file is not None:
        run.write(file)
    run.end()
    entry = run_names.resolve(run.paths.id)
    found = runs.HostRuns("box", runs.wire_to("box").ask("ps", {"all": True}), None, ())
    (removal,) = prune.choose([found], owner=getpass.getuser(), fetched=True, older_than=None)
    (removal,) = prune.with_held([removal], unfetched.unfetched_on_each([entry]))
    assert (removal.why_not_here is not None) is asks
    assert main(["rm", run.paths.id]) == (2 if asks else 0)
    assert ("never fetched" in capsys.readouterr().err) is asks


def test_shell_that_is_left_says_where_its_files_are(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = begun(project, "train")
    answer = {"argv": ["sh", "-c", "exit 3"], "path": run.paths.workspace}
    real = runs.wire_to("box")
    monkeypatch.setattr(type(real), "ask", lambda *_, **__: answer)
    assert main(["shell", run.paths.id]) == 3
    said = " ".join(capfd.readouterr().err.split())
    assert f"its files are in box:{run.paths.workspace}" in said
    assert f"gpurun fetch {run.paths.id} bring what was written there" in said
    assert main(["shell", run.paths.id, "--", "true"]) == 3
    assert "its files" not in capfd.readouterr().err
