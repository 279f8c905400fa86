"""SIGKILL of the supervisor before and after each of its steps: the next verb converges on one run that ran once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from tests.support import saboteur
from tests.support.agent_host import AgentHost


@pytest.mark.parametrize("point", saboteur.POINTS)
def test_killed_at(agent: AgentHost, point: str) -> None:
    flag = agent.root / "trap"
    saboteur.arm(agent.agent, point, runtime="bare", flag=flag, flag_on_host=str(flag))
    run = agent.submit("import time; print('ran', flush=True); time.sleep(0.5); raise SystemExit(3)")
    record = agent.wait(run)
    assert not flag.exists(), "the supervisor was not killed"
    assert (record["state"], record["reason"], record["exit_code"]) == (words.FAILED, "exit", 3)
    assert Path(run.log).read_text() == "ran\n"
    agent.ask("ps")  # reconciles what the dead supervisor left
    assert not Path(run.env).exists()
    assert agent.lock_holders(f"job-{run.id}") == []
