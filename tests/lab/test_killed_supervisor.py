"""As tests/integration/agent/lifecycle/test_killed_supervisor.py, with a real engine: killed anywhere, the container is started once."""

from __future__ import annotations

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.labhost import LabHost
from tests.lab.host.users import ADA
from tests.lab.jobs import Jobs
from tests.support import saboteur


@pytest.mark.parametrize("point", saboteur.POINTS)
def test_killed_at(jobs: Jobs, host: LabHost, point: str) -> None:
    jobs.ask("ps", "-H", "ada")  # brings the agent
    (agent,) = (host.home(ADA) / ".gpurun/agent").iterdir()
    flag = host.home(ADA) / "trap"
    saboteur.arm(agent, point, runtime="docker", flag=flag, flag_on_host=f"{ADA.home}/trap")
    run = jobs.submit("import time; print('ran', flush=True); time.sleep(0.5); raise SystemExit(3)", gpus=1)
    assert jobs.until_ended(run) == (words.FAILED, "exit", 3)
    assert not flag.exists(), "the supervisor was not killed"
    assert jobs.ask("logs", run).stdout == "ran\n"
    assert not (jobs.secrets(run) / "env").exists()
