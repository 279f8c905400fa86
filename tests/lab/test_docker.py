"""The docker runtime on a real engine: its rules hold, its answers are true."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.users import ADA, SUE
from tests.lab.runtimes import Failed, JobOnHost
from tests.support.waiting import eventually

PLAIN = {"image": BASE_IMAGE}
GIB = 1 << 30

ABOUT = """
import json, os, pathlib, pwd, socket, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
pathlib.Path("written").write_text("here")
(pathlib.Path(os.environ["GPURUN_DATA"]) / "lasting").write_text("there")
print(json.dumps({
    "ids": [os.getuid(), os.getgid()], "name": pwd.getpwuid(os.getuid()).pw_name, "groups": os.getgroups(),
    "caps": status["CapEff"], "no_new_privs": status["NoNewPrivs"], "ppid": os.getppid(),
    "cwd": os.getcwd(), "path": sys.path[:4], "env": dict(os.environ),
    "shm": os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks,
}))
"""


def about(job: JobOnHost) -> dict[str, Any]:
    job.ask("prepare", "start")
    assert job.end()["exit_code"] == 0, job.log
    told: dict[str, Any] = json.loads(job.log)
    return told


def inspect(host: LabHost, name: str) -> dict[str, Any]:
    assert host.engine
    told: dict[str, Any] = json.loads(host.engine.docker("inspect", name))[0]
    return told


def test_a_job_is_confined_and_finds_its_things(host: LabHost) -> None:
    limits = {"gpus": 2, "memory": 2 * GIB, "cpus": 1.5, "shm": None}
    job = JobOnHost(
        host,
        {"train.py": ABOUT, "src/package.py": ""},
        ["python", "train.py"],
        gpus=2,
        env={"TOKEN": 'it\'s\n"$(secret)"', "PYTHONPATH": "/mine"},
        more={**PLAIN, "resources": limits},
    )
    told = about(job)
    assert told["ids"] == [ADA.uid, ADA.uid]
    assert told["name"] == ADA.name
    assert (told["caps"].strip("0"), told["no_new_privs"], told["ppid"]) == ("", "1", 1)
    assert told["cwd"] == "/workspace"
    assert told["path"][:4] == ["/workspace", "/workspace", "/workspace/src", "/mine"]
    assert told["shm"] == GIB
    env = told["env"]
    assert env["TOKEN"] == 'it\'s\n"$(secret)"'
    assert env["NVIDIA_VISIBLE_DEVICES"] == ",".join(host.gpus.uuids[:2])
    assert (env["GPURUN_RUN_ID"], env["GPURUN_RUN_NAME"], env["GPURUN_ATTEMPT"]) == ("train-7f3k", "train", "1")
    assert (env["GPURUN_DATA"], env["TMPDIR"]) == ("/gpurun/data", "/workspace/.gpurun/tmp")
    assert (env["HOME"], env["USER"], env["PYTHONUNBUFFERED"]) == ("/gpurun/cache/home", ADA.name, "1")

    found = inspect(host, job.container)
    assert "$(secret)" not in json.dumps(found)
    rules = found["HostConfig"]
    assert rules["CapDrop"] == ["ALL"]
    assert rules["SecurityOpt"] == ["no-new-privileges"]
    assert rules["RestartPolicy"]["Name"] == "no"
    assert (rules["Memory"], rules["MemorySwap"], rules["NanoCpus"]) == (2 * GIB, 2 * GIB, 1_500_000_000)
    assert (rules["Init"], rules["PidsLimit"], rules["IpcMode"]) == (True, 32768, "private")
    assert found["Config"]["Labels"]["gpurun.gpus"] == ",".join(host.gpus.uuids[:2])
    written = [job.run / "workspace/written", host.home() / ".gpurun/data/vision/lasting"]
    assert [path.stat().st_uid for path in written] == [ADA.uid, ADA.uid]
    assert (job.secrets / "env").stat().st_mode & 0o777 == 0o600


def test_a_job_without_gpus_gets_none_of_an_image_that_asks_for_all(host: LabHost) -> None:
    told = about(JobOnHost(host, {"train.py": ABOUT}, ["python", "train.py"], more=PLAIN))
    assert told["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_restrictions_can_be_given_up_by_name(host: LabHost) -> None:
    given_up = {"keep_caps": ["SYS_PTRACE", "no-new-privileges"], **PLAIN}
    job = JobOnHost(host, {"train.py": ABOUT}, ["python", "train.py"], more=given_up)
    assert about(job)["no_new_privs"] == "0"
    assert inspect(host, job.container)["HostConfig"]["CapAdd"] == ["SYS_PTRACE"]


def test_what_root_wrote_becomes_the_users(host: LabHost) -> None:
    writes = "import os\nos.mkdir('new', 0o700)\nopen('new/x', 'w').write(str(os.getuid()))\n"
    job = JobOnHost(host, {"train.py": writes}, ["python", "train.py"], more={"user": "root", **PLAIN})
    job.ask("prepare", "start")
    assert job.end()["exit_code"] == 0, job.log
    assert (job.run / "workspace/new/x").read_text() == "0"
    assert (job.run / "workspace/new/x").stat().st_uid == ADA.uid
    host.run("rm", "-r", f"{ADA.home}/.gpurun/runs")


def test_term_reaches_the_script_alone_and_its_exit_code_is_the_jobs(host: LabHost) -> None:
    script = """
import os, signal, sys, time
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, lambda *_: print("the child got it too", flush=True))
    time.sleep(60)
    os._exit(0)
def stop(*_):
    print("saving", os.waitpid(child, os.WNOHANG), flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
    job = JobOnHost(host, {"train.py": script}, ["python", "train.py"], more=PLAIN)
    job.ask("prepare", "start")
    eventually(lambda: "ready" in job.log)
    job.ask("TERM")
    assert job.end()["exit_code"] == 7
    assert job.log == "ready\nsaving (0, 0)\n"
    job.ask("TERM")  # too late is no error


def test_kill_ends_all_of_it(host: LabHost) -> None:
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    job = JobOnHost(host, {"train.py": deaf}, ["python", "train.py"], more=PLAIN)
    job.ask("prepare", "start")
    eventually(lambda: "ready" in job.log)
    job.ask("KILL")
    assert job.end()["exit_code"] == 137
    job.ask("remove", "remove")
    assert job.ask("presence")["kind"] == "absent"


def test_out_of_memory_is_told_from_a_kill(host: LabHost) -> None:
    hungry = "x = bytearray(1 << 30)\n"
    limits = {"gpus": 0, "memory": 256 << 20, "cpus": None, "shm": None}
    job = JobOnHost(host, {"train.py": hungry}, ["python", "train.py"], more={**PLAIN, "resources": limits})
    job.ask("prepare", "start")
    ended = job.end()
    assert (ended["exit_code"], ended["oom"]) == (137, True)


def test_starting_again_adopts_and_never_runs_twice(host: LabHost) -> None:
    job = JobOnHost(host, {"train.py": "print('once')\nraise SystemExit(3)\n"}, ["python", "train.py"], more=PLAIN)
    job.ask("prepare", "start", "start")
    assert job.end()["exit_code"] == 3
    job.ask("start")
    assert job.end()["exit_code"] == 3
    assert job.log == "once\n"


def test_a_strangers_container_of_that_name_is_left_alone(host: LabHost) -> None:
    assert host.engine
    job = JobOnHost(host, {}, ["python", "-V"], more=PLAIN)
    host.engine.docker("create", "--name", job.container, BASE_IMAGE, "true")
    with pytest.raises(Failed, match="that this run did not make"):
        job.ask("prepare", "start")


def test_no_answer_is_not_absent(host: LabHost) -> None:
    assert host.engine
    job = JobOnHost(host, {}, ["sleep", "60"], more=PLAIN)
    job.ask("prepare", "start")
    host.engine.kill()
    assert job.ask("presence")["kind"] == "no_answer"
    assert job.ask("wait", seconds=30) < 30
    with pytest.raises(Failed, match="engine_down"):
        job.ask("TERM")
    host.engine.start()
    assert job.ask("presence")["kind"] in ("running", "exited")


def test_a_start_waits_for_an_engine_that_comes_back(host: LabHost) -> None:
    assert host.engine
    job = JobOnHost(host, {}, ["true"], more=PLAIN)
    job.ask("prepare")
    host.engine.stop()
    threading.Timer(3.0, host.engine.start).start()
    job.ask("start")
    assert job.end()["exit_code"] == 0


def test_waiting_is_bounded(host: LabHost) -> None:
    job = JobOnHost(host, {}, ["sleep", "60"], more=PLAIN)
    job.ask("prepare", "start")
    assert 1.0 <= job.ask("wait", seconds=1.0) < 60  # the job sleeps so long
    assert not [line for line in host.processes() if "docker wait" in line]


def test_an_engine_under_sudo(host: LabHost) -> None:
    engine = {"runtime": "docker", "engine": ["sudo", "-n", "docker"]}
    job = JobOnHost(host, {"train.py": ABOUT}, ["python", "train.py"], user=SUE, more={"host": engine, **PLAIN})
    assert about(job)["ids"] == [SUE.uid, SUE.uid]


def test_a_shell_beside_the_job_and_after_it(host: LabHost) -> None:
    script = "import time\nprint('ready', flush=True)\ntime.sleep(600)\n"
    job = JobOnHost(host, {"train.py": script}, ["python", "train.py"], env={"TOKEN": "secret"}, more=PLAIN)
    job.ask("prepare", "start")
    eventually(lambda: "ready" in job.log)
    command = ["sh", "-c", "echo $TOKEN $PWD $GPURUN_RUN_ID; ls"]
    said = host.run(*job.ask("shell", command=command))
    assert said.splitlines()[:2] == ["secret /workspace train-7f3k", "train.py"]
    job.ask("KILL")
    job.end()
    job.ask("remove")
    (job.secrets / "env").unlink()
    said = host.run(*job.ask("shell", command=command))
    assert said.splitlines()[:2] == ["/workspace train-7f3k", "train.py"]


def test_a_command_that_is_not_there(host: LabHost) -> None:
    job = JobOnHost(host, {}, ["nonsense"], more=PLAIN)
    job.ask("prepare", "start")
    assert job.end()["exit_code"] == 127
    assert "there is no command nonsense" in job.log


def test_a_mount_that_is_not_there(host: LabHost) -> None:
    mounts = [{"source": "~/no, such", "target": "/data/x", "readonly": True}]
    job = JobOnHost(host, {}, ["true"], more={"mounts": mounts, **PLAIN})
    with pytest.raises(Failed, match=r"the engine cannot make a mount.*no, such"):
        job.ask("prepare", "start")
