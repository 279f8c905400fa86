"""The types of `agent/schema` are those of the files and answers that there really are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.agent_host import AgentHost
from tests.support.fits import misfits
from tests.unit.agent.test_schema import ANSWERS, of_run


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
