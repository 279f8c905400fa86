"""One attempt after the other, without an engine: real agent processes, real ends."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.lifecycle import attempts
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import journal
from tests.integration.agent.lifecycle.test_supervision import SLEEPER, frames
from tests.support.agent_host import AgentHost
from tests.support.trainer import TRAINER
from tests.support.waiting import eventually


def train(agent: AgentHost, *told: str, **changes: Any) -> RunPaths:
    return agent.submit(TRAINER, command=["python", "train.py", "pace=0.01", *told], **changes)


def log(run: RunPaths, attempt: int | None = None) -> str:
    return Path((run if attempt is None else run.of_attempt(attempt)).log).read_text()


def test_resume_after_a_stop_goes_on_where_the_stop_saved(agent: AgentHost) -> None:
    run = train(agent, "steps=300", "every=1000")
    eventually(lambda: Path(run.progress).exists())
    agent.ask("stop", runs=[run.id], grace=30, force=False)
    step = agent.wait(run)["stopped"]["step"]
    record = agent.resume(run)
    assert (record["attempt"], record["live"], record["resumed"]["step"]) == (2, True, step)
    record = agent.wait(run)
    assert (record["state"], record["exit_code"], record["stopped"]) == (words.SUCCEEDED, 0, None)
    assert log(run) == f"attempt 2 begins at step {step}\ntrained to step 300\n"
    assert log(run, 1).endswith(f"saved at step {step}\n")
    (earlier,) = record["attempts"]
    assert (earlier["attempt"], earlier["state"], earlier["reason"]) == (1, words.STOPPED, "stop")
    kept = json.loads(Path(run.of_attempt(1).exit).read_text())
    assert (kept["state"], json.loads(Path(run.exit).read_text())["attempt"]) == (words.STOPPED, 2)


def test_resume_after_a_kill_goes_on_from_the_last_whole_checkpoint(agent: AgentHost) -> None:
    run = train(agent, "kill=25")
    assert agent.wait(run)["reason"] == "signal"
    Path(run.workspace, "checkpoints/step=20.ckpt").write_bytes(b'{"step": 99}')  # as long, and another content
    assert agent.resume(run)["resumed"]["step"] == 10
    assert agent.wait(run)["state"] == words.SUCCEEDED
    assert "attempt 2 begins at step 10" in log(run)


SAVES_AND_IS_KILLED = """
import io, json, os, pickle, signal, zipfile
if os.environ.get("GPURUN_RESUME"):
    print("from", os.path.relpath(os.environ["GPURUN_RESUME"]))
    raise SystemExit
out = os.environ["GPURUN_OUT"]
open(out + "/progress.jsonl", "w").write(json.dumps({"t": 1.0, "attempt": 1, "step": 1}) + "\\n")
open(out + "/checkpoints.jsonl", "w").close()
content = io.BytesIO()
with zipfile.ZipFile(content, "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 1, "global_step": 70}, protocol=2))
open("whole.ckpt", "wb").write(content.getvalue())
half = open("half.ckpt", "wb", buffering=0)
half.write(content.getvalue()[:-30])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_save_that_the_kill_left_no_time_to_list_is_gone_on_from(agent: AgentHost) -> None:
    run = agent.submit(SAVES_AND_IS_KILLED)
    record = agent.wait(run)
    assert (record["reason"], record["checkpoints"]["count"]) == ("signal", 1)
    assert (record["checkpoints"]["last"]["path"], record["checkpoints"]["last"]["step"]) == ("whole.ckpt", 70)
    agent.resume(run)
    agent.wait(run)
    assert log(run) == "from whole.ckpt\n"


SAVES_AND_SLEEPS = SAVES_AND_IS_KILLED.replace(
    "os.kill(os.getpid(), signal.SIGKILL)", "print('saved', flush=True)\nimport time; time.sleep(600)"
)


@pytest.mark.parametrize("retries", [0, 1])
def test_save_that_a_power_cut_left_no_time_to_list_is_gone_on_from(agent: AgentHost, retries: int) -> None:
    """By `resume`, and by the retry of a run whose supervisor has gone with the host."""
    run = agent.submit(SAVES_AND_SLEEPS, retries=retries)
    agent.until_running(run, b"saved")
    agent.end_all()
    agent.boot_id.write_text(secrets.token_hex(16))
    agent.ask("ps")
    if not retries:
        agent.resume(run)
    record = agent.wait(run)
    assert (record["attempt"], record["attempts"][0]["reason"]) == (2, "reboot")
    assert log(run) == "from whole.ckpt\n"


def test_last_checkpoint_to_fetch_after_a_power_cut_is_the_one_that_a_resume_takes(agent: AgentHost) -> None:
    run = agent.submit(SAVES_AND_SLEEPS)
    agent.until_running(run, b"saved")
    agent.end_all()
    agent.boot_id.write_text(secrets.token_hex(16))
    told = agent.ask("checkpoint", run=run.id, which="last")
    assert told["checkpoint"]["name"] == "whole.ckpt"
    assert told["run"]["checkpoints"]["last"]["path"] == "whole.ckpt"


def test_without_a_checkpoint_it_starts_from_the_beginning(agent: AgentHost) -> None:
    run = train(agent, "crash=5")
    agent.wait(run)
    record = agent.resume(run)
    assert record["resumed"] is None
    agent.wait(run)
    assert "attempt 2 begins at step 0" in log(run)


@pytest.mark.parametrize(
    ("wanted", "step"),
    [("best", 40), ("last", 40), ("checkpoints/step=10.ckpt", 10), ("./checkpoints//step=20.ckpt", 20), ("mine.pt", 7)],
)
def test_checkpoint_of_ones_own_choice(agent: AgentHost, wanted: str, step: int) -> None:
    run = train(agent, "steps=45")
    agent.wait(run)
    Path(run.workspace, "mine.pt").write_text('{"step": 7}')
    agent.resume(run, **{"from": wanted})
    agent.wait(run)
    assert f"attempt 2 begins at step {step}" in log(run)


@pytest.mark.parametrize("wanted", ["best", "last", "gone.ckpt", "../../../../etc/passwd", "half.pt"])
def test_wish_that_cannot_be_granted_changes_nothing(agent: AgentHost, wanted: str) -> None:
    run = train(agent, "steps=1")
    before = agent.wait(run)
    Path(run.workspace, "half.pt").write_bytes(b"PK\x03\x04 and no end")
    error = agent.refused("resume", run=run.id, ask="1", env={}, **{"from": wanted})
    assert (error["code"], error["exit"]) == ("no_checkpoint", 2)
    assert agent.status(run) == {**before, "disk": agent.status(run)["disk"]}
    assert log(run).endswith("trained to step 1\n")


def test_live_run_is_refused(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER)
    agent.until_running(run)
    error = agent.refused("resume", run=run.id, ask="1", env={})
    assert error["code"] == "live"
    assert f"gpurun stop {run.id}" in error["next"]
    assert agent.status(run)["attempt"] == 1


def test_run_whose_code_never_arrived_is_refused(agent: AgentHost) -> None:
    run = agent.prepare("pass")
    agent.ask("stop", runs=[run.id], grace=None, force=False)
    error = agent.refused("resume", run=run.id, ask="1", env={})
    assert (error["code"], error["next"]) == ("not_sent", "submit it again")


def test_run_whose_upload_broke_off_for_good_can_be_sent_again(agent: AgentHost) -> None:
    """As one is that goes on on another host: it has its id already."""
    run = agent.prepare("print('here')")
    job = json.loads(Path(run.job).read_text())
    journal.record_end(run, words.FAILED, "sync")
    assert agent.status(run)["state"] == words.FAILED
    assert agent.ask("prepare", job=job, total_bytes=0)["created"]
    assert agent.status(run)["state"] == words.SYNCING
    assert os.listdir(run.snapshot) != []
    agent.start(run)
    assert agent.wait(run)["state"] == words.SUCCEEDED
    assert log(run) == "here\n"


def test_carried_run_that_went_on_here_already_is_not_set_back(agent: AgentHost) -> None:
    run = agent.submit("pass")
    agent.wait(run)
    agent.resume(run)
    agent.wait(run)
    carried: dict[str, Any] = {"checkpoint": None, "attempt": 1, "earlier": [], "progress": None}
    error = agent.refused("resume", run=run.id, ask="late", env={}, carried=carried, manifest=None, **{"from": None})
    assert error["code"] == "went_on"
    assert agent.status(run)["attempt"] == 2


def test_run_that_was_stopped_in_the_queue_can_go_on(agent: AgentHost) -> None:
    run = agent.prepare("print('here')")
    locks = agent.root / "locks" / f"gpurun-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    with (locks / f"run-{run.id}").open("w") as lock:  # no supervisor can stand
        fcntl.flock(lock, fcntl.LOCK_EX)
        agent.start(run)
        agent.ask("stop", runs=[run.id], grace=None, force=False)
    assert agent.wait(run)["state"] == words.STOPPED
    agent.resume(run)
    assert agent.wait(run)["state"] == words.SUCCEEDED
    assert log(run) == "here\n"


def test_the_same_question_sent_twice_is_one_attempt(agent: AgentHost) -> None:
    run = agent.submit("import os, time; time.sleep(2 * int(os.environ['GPURUN_ATTEMPT']) - 2)")
    agent.wait(run)
    assert agent.resume(run, ask="one")["attempt"] == 2
    assert agent.resume(run, ask="one")["attempt"] == 2
    assert agent.wait(run)["attempt"] == 2


def test_secrets_come_again_and_go_again(agent: AgentHost) -> None:
    secret = secrets.token_hex(16)
    run = agent.submit("import os; print(os.environ['TOKEN'])", env={"TOKEN": secret})
    agent.wait(run)
    job = json.loads(Path(run.job).read_text())
    Path(run.job).write_text(json.dumps({**job, "env": ["TOKEN"]}))
    error = agent.refused("resume", run=run.id, ask="1", env={})
    assert (error["code"], "TOKEN" in error["what"]) == ("env", True)
    agent.resume(run, env={"TOKEN": "another"})
    agent.wait(run)
    assert log(run) == "another\n"
    eventually(lambda: not Path(run.env).exists())  # behind the record of the end


def test_stop_of_a_second_attempt_is_its_own(agent: AgentHost) -> None:
    """The stop of the first attempt, its stop file and what it asked of the keeper are not the second one's."""
    run = agent.submit(SLEEPER)
    agent.until_running(run)
    agent.ask("stop", runs=[run.id], grace=1, force=False)
    agent.wait(run)
    agent.resume(run)
    agent.until_running(run, b"here")
    time.sleep(1.0)
    record = agent.status(run)
    assert (record["state"], record["stop_requested"]) == (words.RUNNING, False)
    assert not Path(run.stop_file).exists()
    agent.ask("stop", runs=[run.id], grace=1, force=False)
    assert agent.wait(run)["state"] == words.STOPPED


@pytest.mark.parametrize("crash", ["crash=25", "kill=25"])
def test_retry_goes_on_by_itself(agent: AgentHost, crash: str) -> None:
    run = train(agent, crash, retries=1)
    record = agent.wait(run)
    assert (record["state"], record["attempt"], record["retries"]) == (words.SUCCEEDED, 2, {"asked": 1, "used": 1})
    assert log(run) == "attempt 2 begins at step 20\ntrained to step 40\n"
    assert "attempt 1 begins at step 0" in log(run, 1)


def test_retries_are_counted_and_secrets_stay_until_the_last(agent: AgentHost) -> None:
    run = agent.submit("import os; print(os.environ['TOKEN']); raise SystemExit(3)", env={"TOKEN": "abc"}, retries=2)
    record = agent.wait(run)
    assert (record["state"], record["exit_code"], record["attempt"]) == (words.FAILED, 3, 3)
    assert [earlier["exit_code"] for earlier in record["attempts"]] == [3, 3]
    assert [log(run, 1), log(run, 2), log(run)] == ["abc\n"] * 3
    eventually(lambda: not Path(run.env).exists())
    agent.resume(run)
    assert agent.wait(run)["attempt"] == 6, "somebody asked for it: its retries begin anew"


def test_stopped_and_timed_out_runs_are_not_retried(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER, retries=3)
    agent.until_running(run)
    agent.ask("stop", runs=[run.id], grace=1, force=False)
    assert agent.wait(run)["attempt"] == 1
    record = agent.wait(agent.submit(SLEEPER, retries=3, max_duration=0.5))
    assert (record["state"], record["attempt"]) == (words.TIMED_OUT, 1)


def test_max_duration_is_for_all_retries_together(agent: AgentHost) -> None:
    run = agent.submit("import time; time.sleep(1); raise SystemExit(3)", retries=50, max_duration=2.5)
    record = agent.wait(run)
    assert (record["state"], record["reason"]) == (words.TIMED_OUT, "duration")
    assert record["attempt"] in (2, 3)
    before = record["attempt"]
    agent.resume(run)
    assert agent.wait(run)["attempt"] > before + 1, "somebody asked for it: its time begins anew, and so do its retries"


def test_user_error_in_preparation_is_not_retried(agent: AgentHost) -> None:
    mounts = [{"source": "/no/such/place", "target": "/data", "readonly": False}]
    record = agent.wait(agent.submit("pass", retries=3, mounts=mounts))
    assert (record["state"], record["attempt"]) == (words.FAILED, 1)


def test_reboot_is_retried_when_gpurun_next_speaks_to_the_host(agent: AgentHost) -> None:
    run = train(agent, "steps=200", retries=1)
    eventually(lambda: "step=20" in Path(run.ledger).read_text() if Path(run.ledger).exists() else False)
    agent.end_all()
    agent.boot_id.write_text(secrets.token_hex(16))
    agent.ask("ps")
    record = agent.wait(run)
    assert (record["state"], record["attempt"]) == (words.SUCCEEDED, 2)
    assert record["attempts"][0]["reason"] == "reboot"
    assert "attempt 2 begins at step 0" not in log(run)


def test_host_that_shuts_down_begins_no_attempt_before_it_is_up_again(agent: AgentHost) -> None:
    run = train(agent, "steps=10000", "every=10000", "pace=0.05", retries=1)
    eventually(lambda: Path(run.progress).exists())
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: not agent.lock_holders(f"run-{run.id}"))
    state = journal.fold(run)
    assert (state.attempt, state.between, state.live) == (1, True, True)
    agent.boot_id.write_text(secrets.token_hex(16))
    agent.ask("ps")
    eventually(lambda: Path(run.log).exists() and "attempt 2" in log(run))
    assert "attempt 2 begins at step 0" not in log(run)
    agent.ask("stop", runs=[run.id], grace=30, force=False)
    assert agent.wait(run)["state"] == words.STOPPED


def test_followed_log_goes_through_all_attempts(agent: AgentHost) -> None:
    run = train(agent, "crash=25", retries=1)
    _, data = agent.exchange("logs", run=run.id, follow=True)
    found = frames(data)
    for attempt, path in ((1, run.of_attempt(1).log), (2, run.log)):
        got = [(h["offset"], body) for h, body in found if h.get("stream") == "log" and h["attempt"] == attempt]
        assert got[0][0] == 0
        assert b"".join(body for _, body in got) == Path(path).read_bytes()
    assert found[-1][0]["end"]["attempt"] == 2
    _, data = agent.exchange("logs", run=run.id, attempt=1)
    assert b"".join(body for head, body in frames(data) if head.get("stream") == "log") == log(run, 1).encode()
    assert agent.refused("logs", run=run.id, attempt=3)["code"] == "no_attempt"


def test_files_of_earlier_attempts_are_fetched(agent: AgentHost) -> None:
    run = train(agent, "crash=5", retries=1)
    agent.wait(run)
    listed = {file["as"]: file["path"] for file in agent.ask("outputs", run=run.id)["files"]}
    assert listed["_gpurun/attempts/1/log"] == "attempts/1/log"
    assert listed["_gpurun/log"] == "out/log"
    told = agent.ask("hash", run=run.id, paths=["attempts/1/log"])["hashes"]["attempts/1/log"]
    assert told["whole"]


def _move_the_log(run: RunPaths) -> None:
    os.makedirs(run.of_attempt(1).aside)
    os.rename(run.log, run.of_attempt(1).log)


@pytest.mark.parametrize("die_after", [lambda run: None, _move_the_log, attempts.put_aside])
def test_resume_that_was_killed_is_done_by_the_next_one(
    agent: AgentHost, die_after: Callable[[RunPaths], None]
) -> None:
    run = train(agent, "crash=25")
    record = agent.wait(run)
    die_after(run)
    again = agent.status(run)
    assert (again["state"], again["exit_code"]) == (record["state"], record["exit_code"])
    assert run.id in [one["id"] for one in agent.ask("ps", all=True)["runs"]]
    agent.resume(run)
    assert agent.wait(run)["state"] == words.SUCCEEDED
    assert "crash at step 25" in log(run, 1)
    assert log(run).startswith("attempt 2 begins at step 20")


def test_supervisor_killed_between_two_attempts_is_started_again(agent: AgentHost) -> None:
    run = agent.prepare(TRAINER, command=["python", "train.py", "pace=0.01"], retries=1)
    agent.start(run)
    eventually(lambda: Path(run.ledger).exists())
    supervisors = agent.lock_holders(f"run-{run.id}")
    for pid in {*agent.lock_holders(f"job-{run.id}"), *supervisors}:
        os.kill(pid, signal.SIGKILL)
    assert journal.record_end(run, words.LOST, "keeper", again=True)
    assert not journal.record_end(run, words.LOST, "keeper", again=True)
    record = agent.wait(run)
    assert (record["state"], record["attempt"]) == (words.SUCCEEDED, 2)


def test_resume_that_fails_behind_the_putting_aside_leaves_an_ended_run_as_it_was(agent: AgentHost) -> None:
    run = agent.submit("open('weights.ckpt', 'w').write('w')\nprint('done')\n")
    agent.wait(run)
    reply, _ = agent.exchange("resume", run=run.id, ask="ab", gpus=None, env={"no name": "x"}, **{"from": None})
    assert not reply["ok"]
    assert Path(run.exit).exists(), "the next verb may come late"
    held = agent.ask("unfetched", runs=[run.id])["held"][run.id]
    assert (held["live"], held["stamp"] is None) == (False, False)
    assert Path(run.log).read_text() == "done\n"


def test_run_with_a_line_in_its_journal_that_is_no_event_is_shown_and_starts_nothing_more(agent: AgentHost) -> None:
    """The line may have told that the job was started, or that another attempt began."""
    run = agent.submit("print('done')\n")
    agent.wait(run)
    lines = Path(run.events).read_bytes().splitlines(keepends=True)
    Path(run.events).write_bytes(b"".join([*lines[:2], b"\0\0\0\n", *lines[2:]]))
    record = agent.status(run)
    assert (record["state"], record["problem"]) == (words.SUCCEEDED, f"line 3 of {run.events} is not an event")
    assert agent.refused("resume", run=run.id, ask="1", gpus=None, env={}, **{"from": None})["code"] == "damaged"
    assert agent.refused("migrate", run=run.id, ask="1", target="other")["code"] == "damaged"
