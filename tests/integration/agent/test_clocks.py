"""Durations on a host whose clock is set meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from gpurun.agent import vocabulary as words
from tests.support.agent_host import AgentHost
from tests.support.waiting import eventually
from tests.unit.agent.test_clocks import YEAR

SLEEPER = "import time\nprint('here', flush=True)\ntime.sleep(600)\n"


def set_clock(agent: AgentHost, seconds: float) -> None:
    """Set the clock of the host so much ahead, as NTP does; the time since its boot goes on as before."""
    door = agent.agent / "__main__.py"
    door.write_text(f"import time; real = time.time; time.time = lambda: real() + {seconds}\n" + door.read_text())


def test_watch_clock_that_is_set_ends_no_job_early(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER, max_duration=3600.0)
    agent.until_running(run, b"here")
    set_clock(agent, 2 * YEAR)
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not agent.lock_holders(f"run-{run.id}"))
    agent.ask("ps")  # starts another one, which finds the wrong clock
    eventually(lambda: agent.lock_holders(f"run-{run.id}"))
    log = Path(run.supervisor_log)
    assert agent.status(run)["state"] == words.RUNNING, log.read_text()
    assert not agent.status(run)["stop_requested"]


def test_stop_grace_is_not_measured_by_the_clock(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    set_clock(agent, -2 * YEAR)
    agent.ask("stop", runs=[run.id], grace=5.0, force=False)
    record = agent.wait(run)
    assert (record["state"], record["exit_code"]) == (words.STOPPED, 143)
    assert 0 <= record["ran"] < 60


def test_hook_of_a_checkpoint_that_is_older_by_a_clock_set_back_runs(agent: AgentHost) -> None:
    script = """
import json, os, time
for step, at in ((1, 2e9), (2, 1e9), (3, 1.5e9)):
    with open(f"{step}.ckpt", "w") as file:
        file.write("x")
    with open(os.environ["GPURUN_OUT"] + "/checkpoints.jsonl", "a") as file:
        line = {"t": at, "path": f"{step}.ckpt", "step": step, "size": 1, "complete": True, "sha256": "0" * 64}
        file.write(json.dumps(line) + "\\n")
    while not os.path.exists(f"told-{step}"):
        time.sleep(0.05)
"""
    run = agent.submit(script, on_checkpoint=': >"told-$GPURUN_STEP"')
    assert agent.wait(run)["state"] == words.SUCCEEDED
