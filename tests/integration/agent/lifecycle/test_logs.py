"""What is read out of a log, and what of a thing that the job has put in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent.lifecycle.test_supervision import frames
from tests.support.agent_host import AgentHost
from tests.support.waiting import eventually

SECRET = "root:x:0:0"

IN_ITS_PLACE: dict[str, Callable[[Path], None]] = {
    "link": lambda log: log.symlink_to(log.parent / "secret"),
    "folder": lambda log: log.mkdir(),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", IN_ITS_PLACE)
@pytest.mark.parametrize(
    "request_", [{}, {"follow": True}, {"tail": 3}, {"since": 60}, {"times": True}, {"attempt": 1}]
)
def test_logs_of_what_is_no_file_answers_why_and_reads_nothing(
    agent: AgentHost, kind: str, request_: dict[str, object]
) -> None:
    run = agent.submit("print('hello')")
    agent.wait(run)
    log = Path(run.log)
    log.unlink()
    (log.parent / "secret").write_text(SECRET)
    IN_ITS_PLACE[kind](log)
    _, data = agent.exchange("logs", run=run.id, **request_)
    assert SECRET.encode() not in data
    (error,) = [head["error"] for head, _ in frames(data) if "error" in head]
    assert (error["code"], error["where"], error["exit"]) == ("log_unreadable", str(log), 125)
    assert "a link, a folder or a pipe is in its place" in error["what"]
    status = agent.ask("status", run=run.id)
    assert (status["log_tail"], status["traceback"]) == ("", None)


def test_logs_that_follow_a_run_tell_when_its_log_cannot_be_read(agent: AgentHost) -> None:
    """The first look at the log comes when the job has already replaced it."""
    run = agent.submit(
        "import os, time\nout = os.environ['GPURUN_OUT']\n"
        "os.unlink(out + '/log'); os.symlink('/etc/hostname', out + '/log'); open('done', 'w').close()\ntime.sleep(600)"
    )
    eventually(lambda: Path(run.workspace, "done").exists())
    _, data = agent.exchange("logs", run=run.id, follow=True)
    *before, (last, _) = frames(data)
    assert last["error"]["code"] == "log_unreadable"
    assert not any(head.get("stream") == "log" for head, _ in before)
