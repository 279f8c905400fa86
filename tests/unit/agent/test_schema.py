"""The types of `agent/schema` are those of the files and answers that there really are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import dispatch
from gpurun.agent.schema import answers, host, job, run
from tests import old_files
from tests.unit.agent.conftest import AgentHost
from tests.unit.fits import misfits

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


def test_schema_answers_and_files_of_the_agent_fit(agent: AgentHost) -> None:
    wrong: list[str] = []
    plain = agent.ask

    def ask(verb: str, **request: Any) -> Any:
        answer = plain(verb, **request)
        wrong.extend(misfits(answer, ANSWERS[verb], verb))
        return answer

    agent.ask = ask  # type: ignore[method-assign]
    script = "import os, pathlib; pathlib.Path('model.ckpt').write_bytes(b'x'); os._exit(int(os.environ['CODE']))"
    made = agent.submit(script, retries=1, env={"CODE": "3"})
    agent.wait(made)
    ask("ps", all=True, gpus=True, limit=1, ledgers={})
    ask("logs", run=made.id)
    agent.resume(made, env={"CODE": "0"})
    agent.wait(made)
    ask("shell", run=made.id, command=["true"])
    stamp = ask("outputs", run=made.id, caches=False)["stamp"]
    ask("hash", run=made.id, paths=["workspace/model.ckpt", "workspace/none"])
    ask("checkpoint", run=made.id, which="last")
    ask("unfetched", runs=[made.id], ledgers={})
    ask("migrate", run=made.id, ask="a5k", target="other")
    ask("migrate", run=made.id, back="a5k")
    ask("fetched", run=made.id, what="all", attempt=3, stamp=stamp)
    ask("facts")
    ask("check", stream=False)
    ask("data", name="photos")
    ask("data_folders")
    listeners = [{"name": "port", "run": made.id, "service": False, "port": 80}]
    ask("tunnel", tunnel="t", listeners=listeners, loopback=False, stream=False)
    ask("status", run=made.id, ledgers={})
    wrong += of_run(Path(made.root))
    ask("stop", runs=[made.id], force=False)
    ask("rm", runs=[made.id])
    ask("leave", wipe=False, revoke=None)
    ask("warm", image="none", base=None, profile={})
    assert wrong == []


def test_schema_has_an_answer_for_each_verb() -> None:
    assert set(ANSWERS) == set(dispatch.VERBS)
