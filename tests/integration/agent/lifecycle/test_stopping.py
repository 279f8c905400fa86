"""Stops of a job whose plugin reports: it saves first. A script in the plugin's place, real supervisors and signals."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from tests.integration.agent.lifecycle.test_supervision import WAITS_FOR_END
from tests.support.agent_host import AgentHost
from tests.support.trainer import TRAINER
from tests.support.waiting import eventually


def train(agent: AgentHost, *told: str, **changes: Any) -> RunPaths:
    """A run of the trainer, in the middle of its steps."""
    run = agent.submit(TRAINER, command=["python", "train.py", "steps=10000", "every=10000", *told], **changes)
    agent.until_running(run, b"begins")
    eventually(lambda: Path(run.progress).exists())
    return run


def log(run: RunPaths) -> str:
    return Path(run.log).read_text()


def test_stop_saves_first_and_no_signal_is_needed(agent: AgentHost) -> None:
    run = train(agent)
    agent.ask("stop", runs=[run.id], grace=30, force=False)
    record = agent.wait(run)
    assert (record["state"], record["reason"], record["exit_code"]) == (words.STOPPED, "stop", 0)
    assert "TERM" not in log(run)
    saved = record["stopped"]
    assert (saved["checkpoint"], saved["lost_batches"]) == ("checkpoints/stop.ckpt", 0)
    assert record["checkpoints"]["last"]["step"] == saved["step"]


def test_max_duration_saves_first_too(agent: AgentHost) -> None:
    run = agent.submit(TRAINER, command=["python", "train.py", "steps=10000"], max_duration=1.0, grace=30.0)
    record = agent.wait(run)
    assert (record["state"], record["stopped"]["checkpoint"]) == (words.TIMED_OUT, "checkpoints/stop.ckpt")
    assert "TERM" not in log(run)


def test_grace_time_pauses_while_a_checkpoint_is_written(agent: AgentHost) -> None:
    run = train(agent, "saving=6")
    began = time.monotonic()
    agent.ask("stop", runs=[run.id], grace=1, force=False)
    eventually(lambda: Path(run.saving).exists())
    assert agent.status(run)["saving"]
    record = agent.wait(run)
    assert time.monotonic() - began > 6
    assert (record["exit_code"], record["stopped"]["checkpoint"]) == (0, "checkpoints/stop.ckpt")
    assert not record["saving"]


def test_force_waits_for_no_checkpoint(agent: AgentHost) -> None:
    run = train(agent, "saving=600")
    agent.ask("stop", runs=[run.id], grace=30, force=False)
    eventually(lambda: Path(run.saving).exists())
    agent.ask("stop", runs=[run.id], grace=None, force=True)
    record = agent.wait(run)
    assert (record["state"], record["stopped"]) == (words.STOPPED, None)


def test_what_saves_for_ever_is_no_reason_to_wait(agent: AgentHost) -> None:
    """A file that an earlier save left behind, of a job that died there."""
    run = train(agent, "deaf=1")
    Path(run.saving).touch()
    os.utime(run.saving, (1.7e9, 1.7e9))
    agent.ask("stop", runs=[run.id], grace=1, force=False)
    assert agent.wait(run)["exit_code"] == 137


def test_plugin_that_does_nothing_gets_term_before_the_end_of_the_grace_time(agent: AgentHost) -> None:
    run = train(agent, "pace=60")
    began = time.monotonic()
    agent.ask("stop", runs=[run.id], grace=2, force=False)
    record = agent.wait(run)
    assert time.monotonic() - began > 1.4
    assert (record["state"], record["exit_code"], record["stopped"]) == (words.STOPPED, 0, None)
    assert "TERM" in log(run)


def test_script_that_goes_on_for_long_behind_its_checkpoint_is_ended(agent: AgentHost) -> None:
    run = train(agent, "linger=60")
    agent.ask("stop", runs=[run.id], grace=4, force=False)
    record = agent.wait(run)
    assert (record["state"], record["stopped"]["lost_batches"]) == (words.STOPPED, 0)
    assert log(run).split("\n")[-2] == "TERM"


def test_report_of_an_earlier_attempt_makes_no_plugin(agent: AgentHost) -> None:
    run = agent.submit("import time; print('here', flush=True); time.sleep(600)")
    agent.until_running(run, b"here")
    Path(run.progress).write_text(json.dumps({"attempt": 7}) + "\n")
    agent.ask("stop", runs=[run.id], grace=600, force=False)
    assert agent.wait(run)["exit_code"] == 143


def test_host_that_shuts_down_lets_the_plugin_save(agent: AgentHost) -> None:
    run = train(agent)
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGTERM)
    record = agent.wait(run)
    assert (record["state"], record["reason"], record["exit_code"]) == (words.LOST, "reboot", 0)
    assert record["stopped"]["checkpoint"] == "checkpoints/stop.ckpt"


def test_supervisor_of_a_plain_script_goes_at_term_and_leaves_the_job_alone(agent: AgentHost) -> None:
    run = agent.submit(WAITS_FOR_END + "print('done')")
    agent.until_running(run, b"here")
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: not agent.lock_holders(f"run-{run.id}"))
    Path(run.workspace, "end").touch()
    record = agent.wait(run)
    assert (record["state"], log(run)) == (words.SUCCEEDED, "here\ndone\n")


SAVES_ON_TERM = """
import os, signal, sys, time
if os.environ["GPURUN_ATTEMPT"] == "2": raise SystemExit
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("here", flush=True)
time.sleep(600)
"""


def test_plain_script_that_a_shutdown_ends_with_0_is_lost_and_retried(agent: AgentHost) -> None:
    """systemd sends TERM to the supervisor, and to the job or its engine: many scripts save and leave with 0."""
    run = agent.submit(SAVES_ON_TERM, retries=1)
    agent.until_running(run, b"here")
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: not agent.lock_holders(f"run-{run.id}"))
    os.kill(json.loads(Path(run.keeper).read_text())["pid"], signal.SIGTERM)
    eventually(lambda: "exit_code" in json.loads(Path(run.keeper).read_text()))
    agent.boot_id.write_text(secrets.token_hex(16))
    agent.ask("ps")
    record = agent.wait(run)
    assert (record["state"], record["attempt"]) == (words.SUCCEEDED, 2)
    assert [record["attempts"][0][key] for key in ("state", "reason", "exit_code")] == [words.LOST, "reboot", 0]


def test_pipe_in_the_place_of_a_report_holds_nobody(agent: AgentHost) -> None:
    run = agent.submit(
        "import os, time\n"
        "for name in ('progress.jsonl', 'checkpoints.jsonl', 'stopped.json', 'saving'):\n"
        "    os.mkfifo(os.path.join(os.environ['GPURUN_OUT'], name))\n"
        "print('here', flush=True)\n"
        "time.sleep(600)\n"
    )
    agent.until_running(run, b"here")
    agent.ask("stop", runs=[run.id], grace=0.5, force=False)
    record = agent.wait(run)
    assert (record["state"], record["progress"], record["stopped"]) == (words.STOPPED, None, None)
