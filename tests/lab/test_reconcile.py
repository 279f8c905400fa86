"""The reconcile table, line by line, done to real runs: what the next verb makes of a run whose supervisor is dead."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.setup import wrapper
from tests.lab.host.engine import Engine
from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import SUE
from tests.lab.jobs import SLEEPER, Jobs


@pytest.fixture
def bare(laptop: Laptop, bare_host: LabHost) -> Jobs:
    return Jobs(laptop, bare_host, alias="bare")


@pytest.fixture
def sue(laptop: Laptop, host: LabHost) -> Jobs:
    """Of a user who may use the engine through sudo alone."""
    return Jobs(laptop, host, alias=SUE.alias, user=SUE)


def engine(jobs: Jobs) -> Engine:
    assert jobs.host.engine is not None
    return jobs.host.engine


def token_of(jobs: Jobs, run: str) -> str:
    job = json.loads((jobs.folder(run) / "job.json").read_text())
    return hashlib.sha256(job["token"].encode()).hexdigest()[:16]


def test_running_and_the_container_runs_it_is_watched_again(jobs: Jobs) -> None:
    run = jobs.submit("import time; print('here', flush=True); time.sleep(4); raise SystemExit(3)")
    jobs.until_running(run)
    jobs.kill_supervisor(run)
    jobs.ask("ps")
    assert len(jobs.supervisors(run)) == 1
    assert jobs.until_ended(run) == (words.FAILED, "exit", 3)
    assert jobs.events(run).count(words.RUNNING) == 1


def test_exited_while_nobody_watched_it_is_recorded(jobs: Jobs) -> None:
    run = jobs.submit("import time; print('here', flush=True); time.sleep(1)")
    jobs.until_running(run)
    jobs.kill_supervisor(run)
    engine(jobs).docker("wait", jobs.container(run))
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_container_removed_from_outside_is_lost(jobs: Jobs) -> None:
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    jobs.kill_supervisor(run)
    engine(jobs).docker("rm", "-f", jobs.container(run))
    assert jobs.until_ended(run)[:2] == (words.LOST, "removed")


def test_container_removed_under_the_supervisors_eyes_is_lost(jobs: Jobs) -> None:
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    engine(jobs).docker("rm", "-f", jobs.container(run))
    assert jobs.until_ended(run)[:2] == (words.LOST, "removed")


def test_host_rebooted_while_the_job_ran_is_lost(jobs: Jobs) -> None:
    """The container is there, exited with 255 at the engine's own start."""
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    jobs.host.reboot()
    assert jobs.until_ended(run)[:2] == (words.LOST, "reboot")


def test_host_rebooted_and_the_container_is_gone_is_lost(jobs: Jobs) -> None:
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    jobs.host.reboot()
    engine(jobs).docker("rm", "-f", jobs.container(run))
    assert jobs.until_ended(run)[:2] == (words.LOST, "reboot")


def test_waiting_run_goes_on_after_a_reboot(jobs: Jobs) -> None:
    jobs.host.gpus.use(0, 1, "python", 2048)
    jobs.host.gpus.use(1, 1, "python", 2048)
    jobs.host.gpus.use(2, 1, "python", 2048)
    jobs.host.gpus.use(3, 1, "python", 2048)
    run = jobs.submit("print('here')", gpus=1)
    jobs.until(run, lambda record: bool(record["waiting"]))
    jobs.host.reboot()
    jobs.host.gpus.free()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_engine_that_does_not_answer_is_not_an_absent_container(jobs: Jobs) -> None:
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    jobs.kill_supervisor(run)
    engine(jobs).kill()  # its containers live on
    record = jobs.record(run)
    assert (record["state"], jobs.supervisors(run)) == (words.RUNNING, [])
    engine(jobs).start()
    jobs.ask("ps")
    assert jobs.record(run)["state"] in (words.RUNNING, words.FAILED)


def test_engine_restarted_under_the_supervisors_eyes(jobs: Jobs) -> None:
    """Stopped with TERM, the engine ends its containers: that is an exit of the job, told as one."""
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    engine(jobs).stop()
    time.sleep(1)
    engine(jobs).start()
    state, reason, code = jobs.until_ended(run)
    assert (state, reason) == (words.FAILED, "signal")
    assert code in (137, 143)


SAVES_ON_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('here', flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("watched", [True, False])
def test_stopped_by_somebody_else_and_left_with_0_is_no_success(jobs: Jobs, watched: bool) -> None:
    run = jobs.submit(SAVES_ON_TERM)
    jobs.until_running(run)
    if not watched:
        jobs.kill_supervisor(run)
    engine(jobs).docker("stop", jobs.container(run))
    assert jobs.until_ended(run) == (words.FAILED, "signal", 0)
    assert jobs.ask("wait", run, check=False).returncode == 125


def test_engine_shut_down_under_a_job_that_leaves_with_0_is_no_success(jobs: Jobs) -> None:
    run = jobs.submit(SAVES_ON_TERM)
    jobs.until_running(run)
    engine(jobs).stop()
    engine(jobs).start()
    assert jobs.until_ended(run) == (words.FAILED, "signal", 0)


def test_engine_shut_down_under_a_job_that_nobody_watches_and_that_leaves_with_0_is_no_success(jobs: Jobs) -> None:
    run = jobs.submit(SAVES_ON_TERM)
    jobs.until_running(run)
    jobs.kill_supervisor(run)
    engine(jobs).stop()
    engine(jobs).start()
    assert jobs.until_ended(run) == (words.LOST, "unseen", 0)


@pytest.mark.parametrize("by", ["docker stop", "the engine's shutdown"])
def test_engine_under_sudo_tells_of_a_job_that_was_stopped_from_outside(sue: Jobs, by: str) -> None:
    run = sue.submit(SAVES_ON_TERM)
    sue.until_running(run)
    if by == "docker stop":
        engine(sue).docker("stop", sue.container(run))
    else:
        engine(sue).stop()
        engine(sue).start()
    assert sue.until_ended(run) == (words.FAILED, "signal", 0)


def test_engine_killed_under_a_job_that_finishes_meanwhile_is_success(jobs: Jobs) -> None:
    run = jobs.submit("import time; print('here', flush=True); time.sleep(3)")
    jobs.until_running(run)
    engine(jobs).kill()
    time.sleep(4)  # the job ends, and nobody is there to see it
    engine(jobs).start()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_host_shut_down_under_a_job_that_leaves_with_0_is_lost(jobs: Jobs) -> None:
    """systemd: TERM to the supervisor, and to the engine, which ends its containers by TERM."""
    run = jobs.submit(SAVES_ON_TERM)
    jobs.until_running(run)
    for pid in jobs.supervisors(run):
        os.kill(pid, signal.SIGTERM)
    engine(jobs).stop()
    jobs.host.reboot()
    assert jobs.until_ended(run) == (words.LOST, "reboot", 0)


def test_restarted_by_somebody_else_it_does_not_run_again_and_is_no_success(jobs: Jobs) -> None:
    run = jobs.submit(SAVES_ON_TERM)
    jobs.until_running(run)
    engine(jobs).docker("restart", jobs.container(run))
    assert jobs.until_ended(run)[:2] == (words.FAILED, "signal")
    assert jobs.ask("logs", run).stdout == "here\n"


@pytest.mark.parametrize("watched", [True, False])
def test_renamed_by_somebody_else_it_is_watched_stopped_and_removed(jobs: Jobs, watched: bool) -> None:
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    if not watched:
        jobs.kill_supervisor(run)
    engine(jobs).docker("rename", jobs.container(run), "mine")
    assert jobs.record(run)["state"] == words.RUNNING
    assert jobs.laptop.gpurun("shell", run, "--", "echo", "inside").stdout.strip() == "inside"
    jobs.ask("stop", run, "--force")
    assert jobs.until_ended(run)[0] == words.STOPPED
    jobs.ask("rm", run, "-y")
    assert engine(jobs).containers() == []


def test_killed_while_it_prepared_it_is_started_again(jobs: Jobs) -> None:
    """Queued or preparing, and no container: a supervisor runs the steps again."""
    for index in range(4):
        jobs.host.gpus.use(index, 1, "python", 2048)
    run = jobs.submit("print('here')", gpus=1)
    jobs.until(run, lambda record: bool(record["waiting"]))
    jobs.kill_supervisor(run)
    jobs.host.gpus.free()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def waiting_without_an_engine(jobs: Jobs) -> str:
    """A run whose engine was killed while it waited for a GPU, which is free now."""
    for index in range(4):
        jobs.host.gpus.use(index, 1, "python", 2048)
    run = jobs.submit("print('here')", gpus=1)
    jobs.until(run, lambda record: bool(record["waiting"]))
    engine(jobs).kill()
    jobs.host.gpus.free()
    jobs.until(run, lambda record: "the engine is not running" in str(record["waiting"]))
    return run


def test_engine_killed_before_a_start_is_waited_for_and_named(jobs: Jobs) -> None:
    run = waiting_without_an_engine(jobs)
    engine(jobs).start()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_stop_of_a_run_that_waits_for_its_engine_ends_it(jobs: Jobs) -> None:
    run = waiting_without_an_engine(jobs)
    jobs.ask("stop", run)
    assert jobs.until_ended(run)[0] == words.STOPPED


@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.4, 0.7])
def test_engine_killed_at_any_moment_of_a_start_fails_no_run(jobs: Jobs, after: float) -> None:
    run = jobs.submit("print('here'); raise SystemExit(3)", gpus=1)
    time.sleep(after)
    engine(jobs).kill()
    engine(jobs).start()
    state, reason, code = jobs.until_ended(run)
    # An engine that was killed ends, when it is back, what ran; and tells 0 of a job whose end it had just seen.
    assert (reason, code) in [("exit", 3), ("signal", 137), ("signal", 143), ("engine", None)], state
    assert jobs.ask("logs", run).stdout in ("", "here\n")


def test_image_pruned_while_its_run_waits_is_made_ready_again(jobs: Jobs) -> None:
    for index in range(4):
        jobs.host.gpus.use(index, 1, "python", 2048)
    dockerfile = f"FROM {BASE_IMAGE}\nLABEL of=this-test\n"
    files = {"gpurun.toml": 'dockerfile = "Dockerfile"\n', "Dockerfile": dockerfile, "job.py": "print('here')\n"}
    project = jobs.laptop.project(files)
    run = jobs.ask("submit", "job.py", "-H", "ada", "-g", "1", cwd=project).stdout.strip()
    record = jobs.until(run, lambda record: bool(record["waiting"]) and bool(record["digest"]))
    engine(jobs).docker("rmi", record["image"])
    engine(jobs).docker("image", "prune", "--force")
    jobs.host.gpus.free()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_created_and_not_started_is_made_anew_for_the_gpus_of_now(jobs: Jobs) -> None:
    """The supervisor died between `create` and `start`, and another run has taken the GPU meanwhile."""
    for index in range(4):
        jobs.host.gpus.use(index, 1, "python", 2048)
    run = jobs.submit("import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])", gpus=1)
    jobs.until(run, lambda record: bool(record["waiting"]))
    jobs.kill_supervisor(run)
    labels = (
        f"gpurun.run={run}",
        f"gpurun.gpus={jobs.host.gpus.uuids[0]}",
        "gpurun.owner=ada",
        f"gpurun.token={token_of(jobs, run)}",
    )
    options = [word for label in labels for word in ("--label", label)]
    engine(jobs).docker("create", "--name", jobs.container(run), *options, BASE_IMAGE, "true")
    jobs.host.gpus.free()
    jobs.host.gpus.use(0, 1, "python", 2048)
    assert jobs.until_ended(run)[:2] == (words.SUCCEEDED, "exit")
    assert jobs.ask("logs", run).stdout.strip() == jobs.host.gpus.uuids[1]


def test_exited_and_started_again_by_somebody_else_it_ended_as_it_did_and_ran_once(jobs: Jobs) -> None:
    """As `docker start $(docker ps -aq)` does, while no supervisor stands."""
    run = jobs.submit("import time; print('here', flush=True); time.sleep(1)")
    jobs.until_running(run)
    jobs.kill_supervisor(run)
    engine(jobs).docker("wait", jobs.container(run))
    engine(jobs).docker("start", jobs.container(run))
    assert engine(jobs).docker("wait", jobs.container(run)).strip() == str(wrapper.STARTED_BEFORE)
    said = jobs.host.run("sh", "-c", f"docker logs {jobs.container(run)} 2>&1", user=None)
    assert "this attempt was started before" in said
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    assert (jobs.folder(run) / "out/log").read_text() == "here\n", "the job ran a second time"
    assert jobs.events(run)[-1] == "ended"


def test_bare_job_and_keeper_killed_is_lost(bare: Jobs) -> None:
    run = bare.submit(SLEEPER)
    bare.until_running(run)
    bare.host.kill_users()
    assert bare.until_ended(run)[:2] == (words.LOST, "keeper")


def test_bare_host_rebooted_is_lost(bare: Jobs) -> None:
    run = bare.submit(SLEEPER)
    bare.until_running(run)
    bare.host.reboot()
    assert bare.until_ended(run)[:2] == (words.LOST, "reboot")


def test_runs_of_another_host_that_shares_the_home_are_not_reconciled(
    twin: LabHost, laptop: Laptop, bare: Jobs
) -> None:
    run = bare.submit(SLEEPER)
    bare.until_running(run)
    other = Jobs(laptop, twin, alias="twin")
    laptop.gpurun("ps", "-a", "-H", "twin")
    assert other.supervisors(run) == []
    bare.kill_supervisor(run)
    laptop.gpurun("ps", "-a", "-H", "twin")
    assert (other.supervisors(run), bare.supervisors(run)) == ([], [])
    assert bare.record(run)["state"] == words.RUNNING
