"""GPUs are leased, first in first out, and those of strangers are left alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpurun.agent import vocabulary as words
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import BOB
from tests.lab.jobs import SLEEPER, Jobs


def waits(record: dict[str, object]) -> bool:
    return bool(record["waiting"])


def test_two_submits_at_once_for_one_free_gpu(jobs: Jobs, another_laptop: Callable[[], Laptop]) -> None:
    jobs.host.gpus.reset(count=1)
    second = another_laptop()
    started = []
    for laptop in (jobs.laptop, second):
        project = laptop.project({"gpurun.toml": "", "train.py": SLEEPER})
        started.append(laptop.start("submit", "train.py", "-H", "ada", "-g", "1", cwd=project))
    runs = [process.communicate(timeout=120)[0].decode().strip() for process in started]
    jobs.ask("ps", "-a")  # tells this laptop of the other's run
    deadline = time.monotonic() + 60
    while True:
        records = [jobs.record(run) for run in runs]
        if {record["state"] for record in records} == {words.RUNNING, words.QUEUED}:
            break
        assert time.monotonic() < deadline, records
        time.sleep(0.2)
    (one,) = [record for record in records if record["state"] == words.RUNNING]
    (other,) = [record for record in records if record["state"] == words.QUEUED]
    assert f"GPU 0: run {one['id']} of ada" in other["waiting"]
    jobs.ask("stop", one["id"], "--force")
    assert jobs.until_running(other["id"])["gpus"][0]["index"] == 0


def test_first_come_first_served_and_all_users_in_one_line(jobs: Jobs) -> None:
    jobs.host.gpus.reset(count=1)
    first = jobs.submit(SLEEPER, gpus=1)
    jobs.until_running(first)
    bobs = Jobs(jobs.laptop, jobs.host, alias="bob", user=BOB)
    second = bobs.submit(SLEEPER, gpus=1)
    bobs.until(second, waits)
    third = jobs.submit(SLEEPER, gpus=1)
    jobs.until(third, waits)
    jobs.ask("stop", first, "--force")
    bobs.until_running(second)
    record = jobs.until(third, lambda record: f"run {second}" in str(record["waiting"]))
    assert record["state"] == words.QUEUED
    bobs.ask("stop", second, "--force")
    jobs.until_running(third)


def test_gpu_of_a_stranger_is_not_taken_and_named(jobs: Jobs) -> None:
    jobs.host.gpus.reset(count=2)
    jobs.host.gpus.use(0, 1, "python", 2048)
    run = jobs.submit("import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])", gpus=1)
    jobs.until_ended(run)
    assert jobs.ask("logs", run).stdout.strip() == jobs.host.gpus.uuids[1]
    waiting = jobs.until(jobs.submit(SLEEPER, gpus=2), waits)["waiting"]
    assert "GPU 0: process 1 (" in waiting
    assert "2048 MiB" in waiting


def test_killed_supervisor_does_not_free_the_gpus_of_its_job(jobs: Jobs) -> None:
    """The live container's label holds them, though the lock is free."""
    jobs.host.gpus.reset(count=1)
    first = jobs.submit(SLEEPER, gpus=1)
    jobs.until_running(first)
    bobs = Jobs(jobs.laptop, jobs.host, alias="bob", user=BOB)
    jobs.kill_supervisor(first)
    second = bobs.submit(SLEEPER, gpus=1)  # bob's verbs do not reconcile ada's runs
    waiting = bobs.until(second, waits)["waiting"]
    assert f"run {first}" in waiting


def test_all_gpus(jobs: Jobs) -> None:
    project = jobs.laptop.project({"gpurun.toml": "", "train.py": SLEEPER})
    run = jobs.ask("submit", "train.py", "-H", "ada", "--gpus", "all", cwd=project, timeout=600).stdout.strip()
    assert [gpu["index"] for gpu in jobs.until_running(run)["gpus"]] == [0, 1, 2, 3]


def test_more_than_the_host_has_fails_at_submit_with_what_it_has(jobs: Jobs) -> None:
    project = jobs.laptop.project({"gpurun.toml": "", "train.py": SLEEPER})
    done = jobs.ask("submit", "train.py", "-H", "ada", "-g", "5", cwd=project, check=False)
    assert done.returncode == 2
    assert "has 4" in done.stderr
    assert jobs.ask("ps", "-a", "--json").json["runs"] == []


def test_nvidia_smi_that_hangs_is_told(jobs: Jobs) -> None:
    run = jobs.submit("print('here')", gpus=1)
    jobs.until_ended(run)
    jobs.host.gpus.hang(60)
    run = jobs.submit("print('here')", gpus=1)
    assert "nvidia-smi" in jobs.until(run, waits)["waiting"]
    jobs.host.gpus.reset()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)
