"""The lab itself: what the other tests build on is there, and does what a GPU host does."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from tests.lab.host import steps
from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.lab import Lab
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.steps import LabError
from tests.lab.host.users import ADA, BOB, CARL, SUE
from tests.support.faultproxy import FaultProxy

QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.used", "--format=csv,noheader,nounits")
APPS = ("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits")


def test_every_user_has_the_rights_that_its_name_stands_for(laptop: Laptop, host: LabHost) -> None:
    for user in (ADA, BOB):
        assert laptop.ssh(user.alias, "id -un && docker ps -q").stdout == f"{user.name}\n"
    assert "permission denied" in laptop.ssh(CARL.alias, "docker ps -q", check=False).stderr
    assert laptop.ssh(SUE.alias, "docker ps -q || sudo -n docker ps -q").stdout == ""
    assert "Permission denied" in laptop.ssh("pat", "true", check=False).stderr
    assert host.sshd.traffic().logins >= 4


def test_a_bare_host_has_torch_and_no_engine(laptop: Laptop, bare_host: LabHost) -> None:
    said = laptop.ssh("bare", "command -v docker; python3 -c 'import torch; print(torch.__version__)'").stdout
    assert said == "2.8.0+cu128\n"
    assert "no module" in laptop.ssh("ada", "python3 -c 'import torch'", check=False).stderr.lower()


def test_nvidia_smi_answers_what_the_test_says(host: LabHost) -> None:
    first = host.run(*QUERY).splitlines()
    assert first == [f"{index}, {uuid}, 81920, 4" for index, uuid in enumerate(host.gpus.uuids)]
    host.gpus.use(1, 4321, "python", 2048)
    host.gpus.hold(3, 500)
    assert [line.split(", ")[3] for line in host.run(*QUERY).splitlines()] == ["4", "2052", "4", "504"]
    assert host.run(*APPS) == f"{host.gpus.uuids[1]}, 4321, python, 2048\n"
    assert host.run("nvidia-smi", "-L").count("NVIDIA A100-SXM4-80GB (UUID: GPU-") == 4
    host.gpus.fail()
    with pytest.raises(LabError, match="exit code 9"):
        host.run(*QUERY)
    host.gpus.uninstall()
    with pytest.raises(LabError, match="No such file"):
        host.run(*QUERY)


def test_nvidia_smi_can_be_slow(host: LabHost) -> None:
    host.gpus.hang(0.5)
    started = time.monotonic()
    host.run(*QUERY)
    assert time.monotonic() - started > 0.5


def test_a_container_gets_the_gpus_that_were_asked_for(host: LabHost) -> None:
    assert host.engine
    wanted = ",".join(host.gpus.uuids[1:3])
    argv = ["run", "--rm", "--init", "--gpus", f'"device={wanted}"', "--device", "/dev/nvidia1", BASE_IMAGE]
    program = "import os, torch; print(torch.__version__, os.environ['NVIDIA_VISIBLE_DEVICES'])"
    assert host.engine.docker(*argv, "python", "-c", program) == f"2.8.0+cu128 {wanted}\n"


def test_a_container_that_takes_too_much_memory_is_killed_for_it(host: LabHost) -> None:
    assert host.engine
    limits = ["--init", "--memory", "256m", "--memory-swap", "256m"]
    hungry = ["python", "-c", "x = bytearray(1 << 30); print(len(x))"]
    with pytest.raises(LabError, match="exit code 137"):
        host.engine.docker("run", "--name", "hungry", *limits, BASE_IMAGE, *hungry)
    ended = json.loads(host.engine.docker("inspect", "--format", "{{json .State}}", "hungry"))
    assert (ended["OOMKilled"], ended["ExitCode"]) == (True, 137)


def test_an_image_is_pulled_by_tag_and_by_digest(lab: Lab, host: LabHost) -> None:
    assert host.engine
    name = f"{lab.registry.address}/small"
    for reference in (f"{name}:1", f"{name}@{lab.registry.digest()}"):
        host.engine.docker("pull", reference)
        assert host.engine.docker("run", "--rm", reference, "python3", "-c", "print(6 * 7)") == "42\n"
        host.engine.docker("rmi", reference)


def test_a_pull_breaks_off_with_its_connection(lab: Lab, host: LabHost) -> None:
    assert host.engine
    with FaultProxy(lab.registry.port) as proxy:
        proxy.trickle(4_000_000)

        def break_off() -> None:
            proxy.refuse()
            proxy.reset()

        threading.Timer(1.0, break_off).start()
        with pytest.raises(LabError, match=r"connection refused|connection reset|EOF"):
            host.engine.docker("pull", f"127.0.0.1:{proxy.port}/small:1")


def test_the_engine_can_be_stopped_killed_and_started(host: LabHost) -> None:
    engine = host.engine
    assert engine
    engine.docker("run", "--detach", "--init", "--name", "sleeper", BASE_IMAGE, "sleep", "300")
    engine.kill()
    assert not engine.answers()
    engine.start()
    engine.docker("start", "sleeper")
    engine.stop()
    with pytest.raises(LabError, match="Cannot connect"):
        engine.docker("ps")
    engine.start()
    assert engine.docker("inspect", "--format", "{{.State.Running}}", "sleeper") == "false\n"


def test_a_reboot_ends_everything_and_changes_the_boot_id(laptop: Laptop, host: LabHost) -> None:
    identity = "cat /etc/machine-id /proc/sys/kernel/random/boot_id"
    machine, boot = laptop.ssh("ada", identity).stdout.split()
    laptop.ssh("ada", "touch kept; touch /tmp/lost; setsid sleep 300 </dev/null >/dev/null 2>&1 &")
    steps.until(lambda: host.processes() == ["sleep 300"], step="starting a process", seconds=5)
    host.reboot()
    assert host.processes() == []
    assert laptop.ssh("ada", identity).stdout.split() != [machine, boot]
    assert laptop.ssh("ada", "cat /etc/machine-id; ls kept; ls /tmp/lost", check=False).stdout == f"{machine}\nkept\n"


def test_twins_share_their_homes_and_nothing_else(twin: LabHost, bare_host: LabHost, laptop: Laptop) -> None:
    laptop.ssh("bare", "echo hello >note; touch /tmp/mine")
    assert laptop.ssh("twin", "cat note; ls /tmp").stdout == "hello\n"
    identity = "cat /etc/machine-id /proc/sys/kernel/random/boot_id /etc/hostname"
    ours, theirs = (laptop.ssh(alias, identity).stdout.split() for alias in ("bare", "twin"))
    assert not set(ours) & set(theirs)
    assert not set(twin.gpus.uuids) & set(bare_host.gpus.uuids)


def test_programs_can_be_taken_from_a_host(laptop: Laptop, host: LabHost) -> None:
    host.hide("rsync", "python3")
    assert laptop.ssh("ada", "command -v rsync python3", check=False).stdout == ""
    host.unhide()
    assert laptop.ssh("ada", "command -v rsync python3").stdout == "/usr/bin/rsync\n/usr/bin/python3\n"


def test_a_swapped_host_key_is_refused(laptop: Laptop, host: LabHost, tmp_path: Path) -> None:
    host.sshd.swap_key(tmp_path)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in laptop.ssh("ada", "true", check=False).stderr
    host.sshd.start()
    laptop.ssh("ada", "true")


def test_the_way_to_a_host_can_be_made_long(laptop: Laptop, host: LabHost) -> None:
    with FaultProxy(host.sshd.port, delay=0.05) as proxy:
        laptop.add_alias("slow", port=proxy.port)
        laptop.trust_port(proxy.port, like="ada")
        started = time.monotonic()
        laptop.ssh("slow", "true")
        assert time.monotonic() - started > 0.1 * proxy.turns > 0.5


def test_a_reset_leaves_nothing_of_a_test_behind(laptop: Laptop, host: LabHost) -> None:
    assert host.engine
    laptop.ssh("ada", "mkdir -p .gpurun full && touch /tmp/x /dev/shm/y; setsid sleep 300 </dev/null >/dev/null 2>&1 &")
    host.run("mount", "-t", "tmpfs", "-o", "size=1m,uid=21001", "tmpfs", "/home/gpurun-ada/full", user=None)
    host.engine.docker("run", "--detach", BASE_IMAGE, "sleep", "300")
    host.reset()
    assert host.processes() == []
    assert host.engine.containers() == []
    assert laptop.ssh("ada", "ls -A; ls -A /tmp /dev/shm | grep -v :").stdout.split() == [
        ".bash_logout", ".bashrc", ".profile", ".ssh",
    ]  # fmt: skip
