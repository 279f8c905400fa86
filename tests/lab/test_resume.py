"""Runs that go on, on real hosts: behind a stop, a kill, a job that ate its memory, a reboot."""

from __future__ import annotations

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import ADA
from tests.lab.jobs import Jobs
from tests.support.trainer import TRAINER

LONG = ("steps=10000", "every=10", "pace=0.05")


@pytest.fixture
def bare(laptop: Laptop, bare_host: LabHost) -> Jobs:
    return Jobs(laptop, bare_host, alias="bare")


@pytest.fixture(params=["jobs", "bare"])
def anywhere(request: pytest.FixtureRequest) -> Jobs:
    """The host with an engine, then the one without."""
    found: Jobs = request.getfixturevalue(request.param)
    return found


def train(jobs: Jobs, *told: str, options: tuple[str, ...] = ()) -> str:
    return jobs.submit(TRAINER, *options, "--", *told)


def until_saved(jobs: Jobs, run: str) -> int:
    """Wait for two checkpoints; the step of the last one."""
    record = jobs.until(run, lambda record: (record["checkpoints"] or {}).get("count", 0) >= 2)
    return int(record["checkpoints"]["last"]["step"])


def began_at(jobs: Jobs, run: str, attempt: int) -> int:
    """The step at which the attempt began, as the job itself has told."""
    log = jobs.ask("logs", run, "--attempt", str(attempt)).stdout
    first = log.split("\n")[0]
    assert first.startswith(f"attempt {attempt} begins at step "), log
    return int(first.split()[-1])


def test_after_a_stop(anywhere: Jobs) -> None:
    run = train(anywhere, *LONG)
    until_saved(anywhere, run)
    told = anywhere.ask("stop", run).stderr
    assert "saved checkpoints/stop.ckpt" in told
    step = anywhere.record(run)["stopped"]["step"]
    anywhere.ask("resume", run)
    anywhere.until_running(run)
    assert began_at(anywhere, run, 2) == step
    anywhere.ask("stop", run, "--force")
    assert anywhere.until_ended(run)[0] == words.STOPPED


def test_after_a_kill(anywhere: Jobs) -> None:
    run = train(anywhere, "kill=25", "steps=40")
    assert anywhere.until_ended(run)[:2] == (words.FAILED, "signal")
    done = anywhere.ask("resume", run, "-f")
    assert "attempt 2 begins at step 20\n" in done.stdout
    assert anywhere.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_after_it_ate_its_memory_by_itself(jobs: Jobs) -> None:
    run = train(jobs, "hog=25", "steps=40", options=("--memory", "200MB", "--retries", "1"))
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    assert began_at(jobs, run, 2) == 20
    assert jobs.record(run)["attempts"][0]["reason"] == "oom"


def test_after_a_reboot_by_itself(anywhere: Jobs) -> None:
    run = train(anywhere, *LONG, options=("--retries", "1"))
    until_saved(anywhere, run)
    anywhere.host.reboot()
    record = anywhere.until(run, lambda record: record["attempt"] == 2 and bool(record["log_bytes"]))
    assert record["attempts"][0]["reason"] == "reboot"
    assert began_at(anywhere, run, 2) >= 20
    anywhere.ask("stop", run, "--force")


def test_after_a_reboot_when_asked(anywhere: Jobs) -> None:
    run = train(anywhere, *LONG)
    until_saved(anywhere, run)
    anywhere.host.reboot()
    assert anywhere.until_ended(run)[:2] == (words.LOST, "reboot")
    anywhere.ask("resume", run)
    anywhere.until_running(run)
    assert began_at(anywhere, run, 2) >= 20
    anywhere.ask("stop", run, "--force")


def test_what_an_earlier_attempt_wrote_in_its_container_comes_back(jobs: Jobs) -> None:
    """Its container has to go for the next one's; a checkpoint that lay in it is put where the next one sees it."""
    script = TRAINER.replace('"checkpoints/" + name', '"/var/tmp/checkpoints/" + name').replace(
        'os.makedirs("checkpoints"', 'os.makedirs("/var/tmp/checkpoints"'
    )
    run = jobs.submit(script, "--", "crash=25", "steps=40")
    assert jobs.until_ended(run)[0] == words.FAILED
    done = jobs.ask("resume", run, "-f")
    assert "attempt 2 begins at step 20\n" in done.stdout, done.stderr
    folder = jobs.ask("fetch", run).stdout.strip()
    assert jobs.host.engine
    found = jobs.laptop.run("sh", "-c", f"cd {folder}/outside/var/tmp/checkpoints && ls").stdout.split()
    assert found == ["step=10.ckpt", "step=20.ckpt", "step=30.ckpt", "step=40.ckpt"]


def test_other_number_of_gpus(jobs: Jobs) -> None:
    run = jobs.submit("import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'].count('GPU-'))", gpus=1)
    jobs.until_ended(run)
    assert jobs.ask("resume", run, "-g", "2", "-f").stdout.splitlines() == [run, "2"]
    assert len(jobs.record(run)["gpus"]) == 2
    done = jobs.ask("resume", run, "-g", "9", check=False)
    assert done.returncode == 2
    assert "the job requests 9 GPUs, but this host has 4" in done.stderr
    assert jobs.record(run)["attempt"] == 2


def test_hooks_run_on_the_host_itself(jobs: Jobs) -> None:
    """As its user, with the host's paths, while the job is in its container."""
    hook = 'on_checkpoint = "test -f $GPURUN_CHECKPOINT && echo $GPURUN_STEP `id -un` >>told"\n'
    project = jobs.laptop.project({"gpurun.toml": hook, "train.py": TRAINER}, name="hooked")
    done = jobs.ask("submit", "train.py", "-H", "ada", "-g", "0", "-f", "--", "pace=0.1", cwd=project, timeout=600)
    run = done.stdout.split("\n")[0]
    told = jobs.folder(run) / "workspace/told"
    jobs.until(run, lambda record: told.exists() and told.read_text().count("\n") == 4)
    assert told.read_text().splitlines() == [f"{step} {ADA.name}" for step in (10, 20, 30, 40)]
