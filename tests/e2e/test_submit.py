"""From `submit` to the exit code, and everything that may come between."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ON_HOST, REPOSITORY, Laptop


def test_prints_the_id_alone_and_returns_while_the_job_runs(laptop: Laptop) -> None:
    done = laptop.gpurun("submit", "train.py", *ON_HOST, "--", "3000", "0")
    assert done.code == 0, done.err
    assert re.fullmatch(r"train-[0-9a-z]{4}\n", done.out)
    assert laptop.until(done.out.strip(), "running") == "running"


@pytest.mark.parametrize("code", [0, 3])
def test_follow_ends_with_the_code_of_the_job(laptop: Laptop, code: int) -> None:
    done = laptop.gpurun("submit", "train.py", *ON_HOST, "-f", "--", "3", str(code))
    assert done.code == code, done.err
    run, *log = done.out.splitlines()
    assert log == ["step 0", "step 1", "step 2", "done"]
    assert laptop.gpurun("wait", run).code == code
    assert laptop.gpurun("status", run, "--exit-code").code == code


def test_arguments_replace_those_of_the_job_file_and_the_command_that_starts_is_shown(laptop: Laptop) -> None:
    (laptop.project / "job.toml").write_text('script = "train.py"\nargs = ["1", "9"]\n')
    done = laptop.gpurun("submit", "job.toml", *ON_HOST, "-f", "--", "1", "4")
    assert done.code == 4, done.err
    said = " ".join(done.err.split())
    assert "starts python train.py 1 4" in said
    assert f"1 4 in place of the args of {laptop.project / 'job.toml'}: 1 9" in said


def test_a_warm_submit_is_three_execs(laptop: Laptop) -> None:
    laptop.submit("train.py", "--", "0", "0")
    done = laptop.gpurun("submit", "train.py", *ON_HOST, "--debug", "-f", "--", "0", "0")
    asked = [line for line in done.err.splitlines() if re.match(r"run: (ssh|rsync) ", line) and "--version" not in line]
    assert [re.findall(r"^run: rsync|prepare|start", line)[-1] for line in asked] == ["prepare", "run: rsync", "start"]


def test_interrupt_detaches_and_the_job_goes_on(laptop: Laptop) -> None:
    process = laptop.start("submit", "train.py", *ON_HOST, "-f", "--", "300", "0")
    assert process.stdout is not None
    assert process.stderr is not None
    run = process.stdout.readline().decode().strip()
    assert process.stdout.readline() == b"step 0\n"
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read().decode()
    assert process.wait(20) == 130
    assert f"{run} goes on by itself on demo" in said
    assert f"gpurun logs -f {run}" in said
    assert f"gpurun stop {run}" in said
    assert laptop.state(run) == "running"


def test_two_at_once_are_two_runs(laptop: Laptop) -> None:
    processes = [laptop.start("submit", "train.py", *ON_HOST, "-f", "--", "2", str(code)) for code in (4, 5)]
    outs = [process.communicate(timeout=60)[0].decode().split("\n", 1) for process in processes]
    assert [process.returncode for process in processes] == [4, 5]
    assert outs[0][0] != outs[1][0]
    assert [log for _, log in outs] == ["step 0\nstep 1\ndone\n"] * 2


def test_a_later_edit_changes_nothing_for_an_earlier_run(laptop: Laptop) -> None:
    (laptop.project / "which.py").write_text("import time; time.sleep(2); print(open('name').read())")
    processes = []
    for name in ("one", "two"):
        (laptop.project / "name").write_text(name)  # of the same size, within the same seconds
        process = laptop.start("submit", "which.py", *ON_HOST, "-f")
        assert process.stdout is not None
        process.stdout.readline()  # the id: the host has taken over
        processes.append(process)
    assert [process.communicate(timeout=60)[0] for process in processes] == [b"one\n", b"two\n"]


@pytest.mark.parametrize("after", [0.1, 0.3, 0.5, 0.7, 0.9, 1.2])
def test_a_killed_submit_is_gone_on_with_when_it_is_repeated(laptop: Laptop, after: float) -> None:
    name = f"killed-{secrets.token_hex(2)}"  # the host has those of other tests too
    line = ("submit", "train.py", *ON_HOST, "-n", name, "--", "0", "0")
    process = laptop.start(*line)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    first = process.communicate()[0].decode().strip()
    second = laptop.ok(*line).strip()
    laptop.until(second, "succeeded")
    on_host = {run["id"]: run["state"] for run in laptop.json("ps", "-a", "-H", "demo")["runs"] if run["name"] == name}
    assert set(on_host) == {first, second} - {""}, "a run without an owner is left"
    assert set(on_host.values()) == {"succeeded"}
    known = {path.stem for path in (laptop.home / ".local/share/gpurun/runs").glob(f"{name}-*.json")}
    assert known == set(on_host)


@pytest.mark.parametrize("steps", [0, 300])  # the run has ended, or goes on, when the same line is typed again
def test_a_submit_killed_before_it_could_tell_its_id_tells_it_when_it_is_repeated(laptop: Laptop, steps: int) -> None:
    name = f"untold-{secrets.token_hex(2)}"
    line = ("submit", "train.py", *ON_HOST, "-n", name, "--", str(steps), "0")
    reader, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, b"x")
    os.set_blocking(full, True)  # to tell the id now takes until somebody reads
    process = laptop.start(*line, stdout=full)
    state = "succeeded" if steps == 0 else "running"
    run = wait_for_run(laptop, name, state)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for end in (reader, full):
        os.close(end)
    again = laptop.gpurun(*line)
    assert again.out == f"{run}\n"
    assert f"{run} had been started by the submit that this one repeats" in again.err
    assert ("succeeded" in again.err) == (steps == 0)
    if steps == 0:
        assert laptop.ok(*line).strip() != run, "it had been told: the next is another"


def test_an_interrupted_submit_names_the_run_that_may_start_all_the_same(laptop: Laptop) -> None:
    slow = laptop.home / "ssh-that-dawdles"
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in *" start"*) sleep 60;; esac\nexec {laptop.environment["GPURUN_SSH"]} "$@"\n'
    )
    slow.chmod(0o755)
    laptop.environment["GPURUN_SSH"] = str(slow)
    name = f"broken-{secrets.token_hex(2)}"
    process = laptop.start("submit", "train.py", *ON_HOST, "-n", name, "--", "0", "0")
    run = wait_for_run(laptop, name, "syncing")
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 130
    assert f"interrupted. demo may start {run} all the same." in said
    assert f"gpurun stop {run}" in said
    assert " goes on from here" in said


def wait_for_run(laptop: Laptop, name: str, state: str) -> str:
    """Wait until the host has a run of that name in that state; its id."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for run in laptop.json("ps", "-a", "-H", "demo")["runs"]:
            if (run["name"], run["state"]) == (name, state):
                return str(run["id"])
        time.sleep(0.1)
    raise AssertionError(f"no run {name} is {state}")


def test_a_dry_run_of_every_job_file_asks_no_host(laptop: Laptop) -> None:
    files = sorted((REPOSITORY / "jobs").glob("*.toml"))
    assert files
    laptop.environment["GPURUN_SSH"] = "/bin/false"
    for file in files:
        done = laptop.gpurun("submit", str(file), "-H", "nowhere", "--dry-run", "--json")
        assert done.code == 0, f"{file}: {done.err}"
        plan = json.loads(done.out)
        assert plan["job"]["command"]
        assert plan["files"]["count"] > 0


def test_a_job_that_changes_while_it_is_sent_is_sent_again(laptop: Laptop, tmp_path: Path) -> None:
    # An rsync that edits the project just before the first transfer, as an editor may.
    shim = tmp_path / "rsync"
    real = subprocess.run(["which", "rsync"], capture_output=True, text=True, check=True).stdout.strip()
    shim.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *--files-from*) [ -e {tmp_path}/once ] || '
        f"{{ touch {tmp_path}/once; echo 'print(\"edited\")' > {laptop.project}/train.py; }};; esac\n"
        f'exec {real} "$@"\n'
    )
    shim.chmod(0o755)
    laptop.environment["PATH"] = f"{tmp_path}:{laptop.environment['PATH']}"
    done = laptop.gpurun("submit", "train.py", *ON_HOST, "-f")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1:] == ["edited"]


def test_the_hosts_no_is_one_message_and_leaves_no_run(laptop: Laptop) -> None:
    done = laptop.gpurun("submit", "train.py", "-H", "demo", "-g", "64", "--runtime", "bare", "--", "0", "0")
    assert done.code == 2
    assert done.out == ""
    assert "error: the job requests 64 GPU" in done.err
    assert "next: " in done.err
    assert not list((laptop.home / ".local/share/gpurun/runs").glob("*.json"))


def test_an_unknown_host_ends_with_255(laptop: Laptop) -> None:
    laptop.environment["GPURUN_SSH"] = "ssh"
    done = laptop.gpurun("submit", "train.py", "-H", "no-such-host.invalid", "-g", "0", "--", "0", "0")
    assert done.code == 255
    assert done.err.startswith("error: no machine is known by the name"), "before the plan is shown"
    assert "next: " in done.err


LISTEN = """\
import os, tempfile
from multiprocessing.connection import Listener
from multiprocessing.util import get_temp_dir
with Listener(family="AF_UNIX"):
    print(len(os.path.realpath(get_temp_dir())), os.path.realpath(tempfile.gettempdir()))
"""


def test_workers_of_a_job_reach_one_another_although_its_folder_has_a_long_path(laptop: Laptop) -> None:
    (laptop.project / "listen.py").write_text(LISTEN)
    run = laptop.submit("listen.py", "-n", "x" * 40)
    assert laptop.gpurun("wait", run).code == 0, laptop.ok("logs", run)
    length, folder = laptop.ok("logs", run).split()
    assert int(length) > 107
    assert folder.endswith(f"{run}/workspace/.gpurun/tmp"), "checkpoints are renamed from there"
