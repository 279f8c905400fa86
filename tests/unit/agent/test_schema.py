"""The types of `agent/schema` are those of the files and answers that there really are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import dispatch
from gpurun.agent.schema import answers, host, job, run
from tests.support import old_files
from tests.support.fits import misfits

ANSWERS: dict[str, Any] = {
    "prepare": answers.PrepareAnswer,
    "start": answers.RunAnswer,
    "resume": answers.RunAnswer,
    "logs": answers.RunAnswer,
    "migrate": answers.MigrateAnswer,
    "ps": answers.PsAnswer,
    "status": answers.StatusAnswer,
    "wait": answers.WaitAnswer,
    "stop": answers.StopAnswer,
    "rm": answers.RmAnswer,
    "unfetched": answers.UnfetchedAnswer,
    "shell": answers.ShellAnswer,
    "outputs": answers.OutputsAnswer,
    "hash": answers.HashAnswer,
    "fetched": answers.FetchedAnswer,
    "checkpoint": answers.CheckpointAnswer,
    "data": answers.DataAnswer,
    "data_folders": answers.DataFoldersAnswer,
    "facts": host.HostFacts,
    "check": answers.CheckAnswer,
    "leave": answers.LeaveAnswer,
    "warm": answers.WarmAnswer,
    "tunnel": answers.TunnelAnswer,
}
FILES: dict[str, Any] = {
    "job.json": job.Job,
    "exit.json": run.ExitRecord,
    "prepared.json": run.Prepared,
    "environment.json": run.Environment,
    "fetched.json": run.FetchNote,
}


def of_run(folder: Path) -> list[str]:
    """Where the files of a run differ from the schema."""
    found = [(name, json.loads(path.read_bytes()), FILES[name]) for name in FILES for path in folder.rglob(name)]
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [(f"events.jsonl:{at}", json.loads(line), run.Event) for at, line in enumerate(lines, 1)]
    return [wrong for name, value, kind in [*found, *events] for wrong in misfits(value, kind, name)]


@pytest.mark.parametrize("name", old_files.RUNS)
def test_schema_files_of_0_1_0_fit(tmp_path: Path, name: str) -> None:
    old_files.lay_out("host", tmp_path, host=tmp_path, project=tmp_path / "vision")
    old_files.lay_out("laptop", tmp_path / "laptop", host=tmp_path, project=tmp_path / "vision")
    assert of_run(tmp_path / "runs" / name) == []
    kept = json.loads((tmp_path / "laptop/runs" / f"{name}.json").read_bytes())
    assert misfits(kept["job"], job.JobSpec) + misfits(kept["record"], run.RunRecord) == []


def test_schema_has_an_answer_for_each_verb() -> None:
    assert set(ANSWERS) == set(dispatch.VERBS)
