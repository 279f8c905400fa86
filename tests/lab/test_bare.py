"""The bare runtime on a host without an engine: who waits for a job, what is told of its end, what is left of it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.lab.host.labhost import LabHost
from tests.lab.host.users import ADA
from tests.lab.runtimes import Failed, JobOnHost
from tests.support.waiting import eventually

ABOUT = """
import json, os, sys, torch
print(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[:3], "torch": torch.__version__}))
"""
# A child in a session of its own, and a grandchild that nobody is the parent of: both outlive a plain kill.
FAMILY = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        os.execve("/bin/sleep", ["sleep", "500"], {})
    time.sleep(500)
def stop(*_):
    print("saving", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(500)
"""


def bare(host: LabHost, script: str, **more: object) -> JobOnHost:
    env = {"TOKEN": 'it\'s\n"$(secret)"'}
    return JobOnHost(host, {"train.py": script}, ["python", "train.py"], runtime="bare", env=env, more=more)


def started(job: JobOnHost) -> JobOnHost:
    job.ask("prepare", "start")
    eventually(lambda: "ready" in job.log)
    return job


def test_a_job_finds_its_things_and_the_python_that_has_torch(bare_host: LabHost) -> None:
    job = bare(bare_host, ABOUT)
    job.gpus = 2
    job.ask("prepare", "start")
    assert job.end()["exit_code"] == 0, job.log
    told = json.loads(job.log)
    root = f"{ADA.home}/.gpurun"
    assert told["torch"] == "2.8.0+cu128"
    assert told["cwd"] == f"{root}/runs/train-7f3k/workspace"
    env = told["env"]
    assert env["TOKEN"] == 'it\'s\n"$(secret)"'
    assert env["CUDA_VISIBLE_DEVICES"] == ",".join(bare_host.gpus.uuids[:2])
    assert (env["GPURUN_DATA"], env["HOME"]) == (f"{root}/data/vision", f"{root}/cache/jobs/home")
    assert env["PYTHONPATH"] == f"{told['cwd']}:{root}/runs/train-7f3k/ro/plugin"


def test_a_job_without_gpus_sees_none(bare_host: LabHost) -> None:
    job = bare(bare_host, ABOUT)
    job.ask("prepare", "start")
    job.end()
    assert json.loads(job.log)["env"]["CUDA_VISIBLE_DEVICES"] == ""


def test_the_end_is_the_jobs_own(bare_host: LabHost) -> None:
    job = bare(bare_host, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    job.ask("prepare", "start")
    ended = job.end()
    assert ended["exit_code"] == 128 + signal.SIGSEGV
    assert not ended["oom"]
    assert ended["started_at"] <= ended["finished_at"] <= time.time()


def test_term_goes_to_the_script_and_nothing_stays_behind(bare_host: LabHost) -> None:
    job = started(bare(bare_host, FAMILY))
    assert len([line for line in bare_host.processes() if "train.py" in line or "sleep 500" in line]) == 3
    job.ask("TERM")
    assert job.end()["exit_code"] == 7
    assert job.log == "ready\nsaving\n"
    eventually(lambda: bare_host.processes() == [])


def test_kill_ends_all_of_it(bare_host: LabHost) -> None:
    job = started(bare(bare_host, FAMILY.replace("sys.exit(7)", "pass")))
    job.ask("KILL")
    assert job.end()["exit_code"] == 137
    eventually(lambda: bare_host.processes() == [])


def test_starting_again_adopts_and_never_runs_twice(bare_host: LabHost) -> None:
    job = bare(bare_host, "import time\nprint('once', flush=True)\ntime.sleep(1)\nraise SystemExit(3)\n")
    job.ask("prepare", "start", "start")
    assert job.end()["exit_code"] == 3
    job.ask("start")
    assert job.log == "once\n"


def test_a_job_outlives_its_keepers_and_can_still_be_stopped(bare_host: LabHost) -> None:
    job = started(bare(bare_host, FAMILY))
    kill_keepers(bare_host)
    assert job.ask("presence")["kind"] == "running"
    job.ask("TERM")
    eventually(lambda: "saving" in job.log)
    assert job.ask("presence")["kind"] == "running"  # its children live
    job.ask("remove")
    assert job.ask("presence")["kind"] == "absent"


def test_a_job_that_was_killed_with_its_keepers_is_not_started_again(bare_host: LabHost) -> None:
    job = started(bare(bare_host, FAMILY))
    kill_keepers(bare_host)
    bare_host.kill_users()
    assert job.ask("presence")["kind"] == "absent"
    with pytest.raises(Failed, match="how the job ended is unknown"):
        job.ask("start")


def test_a_shell_is_in_the_jobs_environment(bare_host: LabHost) -> None:
    job = started(bare(bare_host, FAMILY))
    command = ["sh", "-c", 'echo "$GPURUN_RUN_ID" "$(pwd)"; python -c "import torch; print(torch.__version__)"']
    said = bare_host.run(*job.ask("shell", command=command)).splitlines()
    assert said == [f"train-7f3k {ADA.home}/.gpurun/runs/train-7f3k/workspace", "2.8.0+cu128"]
    job.ask("remove")


def test_data_can_be_mounted_where_it_lies_or_into_the_workspace(bare_host: LabHost) -> None:
    mounts = [
        {"source": "~/scans", "target": f"{ADA.home}/scans", "readonly": True},
        {"source": "~/scans", "target": "/workspace/in/scans", "readonly": False},
    ]
    script = f"print(open('in/scans/one').read() + open('{ADA.home}/scans/one').read())"
    job = bare(bare_host, script, mounts=mounts)
    job.write(bare_host.home() / "scans/one", "1")
    job.ask("prepare", "start")
    job.end()
    assert job.log == "11\n"
    elsewhere = bare(bare_host, script, mounts=[{"source": "~/scans", "target": "/data/scans"}])
    with pytest.raises(Failed, match=r"cannot be mounted at /data/scans.*mount it at"):
        elsewhere.ask("prepare")


def test_a_python_that_does_not_run_is_named(bare_host: LabHost) -> None:
    profile = {"python": "/opt/nothing/bin/python", "pip_index": None}
    with pytest.raises(Failed, match="/opt/nothing/bin/python does not run"):
        bare(bare_host, ABOUT, profile=profile).ask("prepare")


def test_a_python_that_is_a_venv_is_seen_whole(bare_host: LabHost) -> None:
    """A venv of a venv sees the packages of the Python below both unless it is told of its parent's."""
    bare_host.run("python3", "-m", "venv", "--without-pip", f"{ADA.home}/venv")
    packages = bare_host.home() / "venv/lib/python3.11/site-packages"
    (packages / "mine.py").write_text("print('mine')\n")
    profile = {"python": f"{ADA.home}/venv/bin/python", "pip_index": None}
    job = bare(bare_host, "import mine\n", profile=profile)
    job.ask("prepare", "start")
    assert job.end()["exit_code"] == 0, job.log
    assert job.log == "mine\n"


def test_the_end_of_a_job_that_filled_the_disk_is_written(bare_host: LabHost) -> None:
    root = f"{ADA.home}/.gpurun"
    bare_host.run("mkdir", "-p", root)
    bare_host.run("mount", "-t", "tmpfs", "-o", f"size=20m,uid={ADA.uid}", "tmpfs", root, user=None)
    late = JobOnHost(bare_host, {}, ["true"], runtime="bare", id="late-9k2m")
    late.ask("prepare")
    job = bare(bare_host, "file = open('large', 'wb', 0)\nwhile True:\n    file.write(bytes(1 << 12))\n")
    job.ask("prepare", "start")
    assert job.end()["exit_code"] == 1
    with pytest.raises(Failed, match="the host's disk is full"):
        late.ask("start")


def kill_keepers(host: LabHost) -> None:
    """Both: one alone goes on for the other."""
    found = [
        pid for pid in host.box.processes(ADA.uid) if b"GPURUN_KEEPER=" in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    assert len(found) == 2
    for pid in found:
        os.kill(pid, signal.SIGKILL)
