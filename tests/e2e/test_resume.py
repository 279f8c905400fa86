"""Runs that end before they are done, and go on: `stop` that saves, `resume`, `retries`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.conftest import ON_HOST, Laptop
from tests.support.trainer import TRAINER


@pytest.fixture(autouse=True)
def _trainer(laptop: Laptop) -> None:
    (laptop.project / "train.py").write_text(TRAINER)


def until_it_trains(laptop: Laptop, run: str) -> None:
    while not laptop.json("status", run)["run"]["progress"]:
        pass


def test_stop_says_what_it_saved_and_resume_goes_on_from_there(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "steps=200", "every=1000", "pace=0.05")
    until_it_trains(laptop, run)
    done = laptop.gpurun("stop")
    assert done.code == 0, done.err
    assert "saved checkpoints/stop.ckpt (epoch" in done.err
    assert "nothing is lost" in done.err
    assert f"gpurun resume {run}" in done.err
    done = laptop.gpurun("resume", "-f")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == run
    assert f"{run} goes on as attempt 2 on demo, from checkpoints/stop.ckpt (epoch" in done.err
    assert "attempt 2 begins at step" in done.out
    assert "trained to step 200" in done.out
    assert "attempt 1 begins" in laptop.ok("logs", run, "--attempt", "1")
    assert "attempt 1 begins" not in laptop.ok("logs", run)
    shown = laptop.ok("status", run)
    assert "2, from checkpoints/stop.ckpt" in shown
    assert "attempt 1 was stopped" in shown


def test_resume_of_a_live_run_is_refused(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "steps=10000", "every=10000")
    laptop.until(run, "running")
    done = laptop.gpurun("resume", run)
    assert done.code == 2
    assert f"{run} is still running on demo" in done.err
    assert f"gpurun stop {run}" in done.err


def test_resume_without_a_checkpoint_says_so(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "crash=3", "every=1000", "steps=5")
    assert laptop.gpurun("wait", run).code == 1
    done = laptop.gpurun("resume", run, "-f")
    assert "attempt 2 on demo, from the beginning: no whole checkpoint is there" in done.err
    done = laptop.gpurun("resume", run, "--from", "gone.ckpt")
    assert done.code == 2
    assert "has no checkpoint gone.ckpt" in done.err


def test_values_of_variables_come_again_from_shell_files_and_options(laptop: Laptop) -> None:
    (laptop.project / "env.py").write_text("import os; print(*(os.environ[name] for name in ('A', 'B', 'C')))")
    (laptop.project / "job.toml").write_text('script = "env.py"\nenv = ["A"]\nenv_file = ".env"\n')
    (laptop.project / ".env").write_text("B=from-file\n")
    laptop.environment["A"] = "from-shell"
    run = laptop.submit("job.toml", "-e", "C=from-option")
    laptop.ok("wait", run)
    done = laptop.gpurun("resume", run, "-y")  # it has succeeded
    assert done.code == 2
    assert f"{run} was started with C; such values are wiped" in done.err
    assert f"gpurun resume {run} -e C=..." in done.err
    done = laptop.gpurun("resume", run, "-e", "C=again", "-f")
    assert done.out.splitlines() == [run, "from-shell from-file again"], done.err
    del laptop.environment["A"]
    done = laptop.gpurun("resume", run, "-e", "C=again")
    assert done.code == 2
    assert "A takes its value from this shell, where it is not set" in done.err


def test_retries_are_followed_to_the_end(laptop: Laptop) -> None:
    done = laptop.gpurun("submit", "train.py", *ON_HOST, "--retries", "2", "-f", "--", "crash=25", "pace=0.02")
    assert done.code == 0, done.err
    run, *log = done.out.splitlines()
    assert "RuntimeError: crash at step 25" in log
    assert log[-2:] == ["attempt 2 begins at step 20", "trained to step 40"]
    assert "attempt 1 failed with exit code 1; attempt 2 begins from checkpoints/step=20.ckpt" in done.err
    assert laptop.json("status", run)["run"]["retries"] == {"asked": 2, "used": 1}


def test_what_was_fetched_is_not_all_any_more_after_a_resume(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "crash=15", "steps=30")
    laptop.gpurun("wait", run)
    folder = laptop.ok("fetch", run).strip()
    laptop.ok("resume", run)
    laptop.ok("wait", run)
    assert f"not since attempt 2 began; what came before is in {folder}" in laptop.ok("status", run)
    done = laptop.gpurun("rm", run)
    assert "never fetched" in done.err
    laptop.ok("fetch", run)
    assert sorted(os.listdir(f"{folder}/checkpoints")) == ["step=10.ckpt", "step=20.ckpt", "step=30.ckpt"]
    record = Path(folder, "_gpurun")
    assert "crash at step 15" in (record / "attempts/1/log").read_text()
    assert "attempt 2 begins at step 10" in (record / "log").read_text()


def test_hooks_of_a_job_file(laptop: Laptop) -> None:
    (laptop.project / "job.toml").write_text(
        'script = "train.py"\nargs = ["steps=20"]\n'
        'on_checkpoint = "echo $GPURUN_STEP >>steps"\n'
        'on_end = "echo $GPURUN_STATE $GPURUN_PROJECT >>ended; exit 3"\n'
    )
    run = laptop.submit("job.toml")
    laptop.ok("wait", run)
    while "on_end failed with exit code 3" not in laptop.ok("status", run):
        pass
    folder = laptop.ok("fetch", run).strip()
    assert Path(folder, "steps").read_text().splitlines()[-1] == "20"
    assert Path(folder, "ended").read_text() == "succeeded vision\n"
    assert laptop.json("status", run)["run"]["state"] == "succeeded"
