"""`gpurun host`: from an address to a host that is known, checked, and given back."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.sshd import make_key
from tests.lab.host.users import ADA, CARL, PASSWORD, PAT, SUE
from tests.lab.terminal import Terminal

GPURUN = [sys.executable, "-m", "gpurun"]
TRAIN = "import pathlib\npathlib.Path('best.ckpt').write_text('weights')\nprint('trained')\n"


def fingerprint(host: LabHost, tmp_path: Path) -> str:
    key = tmp_path / "host_key.pub"
    key.write_text(host.sshd.public_key)
    said = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, check=True, text=True).stdout
    return said.split()[1]


@pytest.fixture
def stranger(laptop: Laptop) -> Laptop:
    """A laptop whose SSH configuration knows no host: it has a key, and what the panel shows. Its ssh reads no other."""
    laptop.ssh_config.write_text(
        f"Host *\n  IdentityFile {laptop.home}/.ssh/id_ed25519\n  UserKnownHostsFile {laptop.known_hosts}\n"
    )
    laptop.known_hosts.write_text("")
    laptop.hosts_file.write_text("")
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", laptop.home / ".ssh/id_ed25519"], capture_output=True, check=True, text=True
    )
    (laptop.home / ".ssh/id_ed25519.pub").write_text(public.stdout)
    return laptop


# --- add


def test_adding_without_a_terminal_wants_the_fingerprint(bare_host: LabHost, stranger: Laptop, tmp_path: Path) -> None:
    target = f"{ADA.name}@127.0.0.1:{bare_host.sshd.port}"
    shown = fingerprint(bare_host, tmp_path)
    told = stranger.gpurun("host", "add", "box", target, check=False)
    assert told.returncode == 255
    assert f"gpurun host add box --accept-key {shown}" in told.stderr
    wrong = stranger.gpurun("host", "add", "box", target, "--accept-key", "SHA256:wrong", check=False)
    assert wrong.returncode == 125
    assert f"{shown}, not SHA256:wrong" in wrong.stderr
    assert stranger.known_hosts.read_text() == stranger.hosts_file.read_text() == ""
    added = stranger.gpurun("host", "add", "box", target, "--accept-key", shown)
    assert "box is added" in added.stderr
    assert (
        "gpurun submit train.py --gpus 0 -H box -f" in added.stderr
        or "gpurun submit train.py -H box -f" in added.stderr
    )
    assert stranger.gpurun("ps", "-H", "box", "--json").json is not None


def test_the_line_that_a_rental_panel_prints(bare_host: LabHost, stranger: Laptop, tmp_path: Path) -> None:
    line = f"ssh -p {bare_host.sshd.port} {ADA.name}@127.0.0.1 -L 8080:localhost:8080"
    added = stranger.gpurun("host", "add", "box", line, "--accept-key", fingerprint(bare_host, tmp_path), "--json")
    assert added.json["ok"]
    assert not added.json["updated"]
    assert f"port = {bare_host.sshd.port}" in stranger.hosts_file.read_text()


def test_a_key_is_put_there_with_the_password_and_taken_away_again(host: LabHost, stranger: Laptop) -> None:
    stranger.hosts_file.write_text(f'[hosts.box]\nbase_image = "{BASE_IMAGE}"\n')  # what is made ready there
    mine = host.home(PAT) / ".ssh/authorized_keys"
    mine.write_text("ssh-ed25519 AAAA a colleague's key, without its newline")
    shutil.chown(mine, PAT.uid, PAT.uid)
    target = f"{PAT.name}@127.0.0.1:{host.sshd.port}"
    with Terminal([*GPURUN, "host", "add", "box", target], env=stranger.env, cwd=stranger.home) as person:
        person.expect("SHA256:")
        person.expect("Is this the host's key?")
        person.type("y")
        person.expect("Put ")
        person.type("y")
        person.expect("password:")
        person.type("wrong")
        person.expect("refused, try again")
        person.expect("password:")
        person.type(PASSWORD)
        person.expect("marked `gpurun:")
        person.expect("box is updated", 60)
        person.wait()
    kept, installed = mine.read_text().splitlines()
    assert kept == "ssh-ed25519 AAAA a colleague's key, without its newline"
    assert installed.split()[2].startswith("gpurun:")
    assert installed.split()[2].endswith(":box")
    assert stranger.gpurun("ps", "-H", "box").returncode == 0  # nobody is asked for a password here
    assert "its key is taken away" in stranger.gpurun("host", "rm", "box", "--revoke").stderr
    assert mine.read_text() == kept + "\n"
    assert "box" not in stranger.hosts_file.read_text()


def test_a_key_that_is_not_trusted_ends_it(host: LabHost, stranger: Laptop) -> None:
    target = f"{ADA.name}@127.0.0.1:{host.sshd.port}"
    with Terminal([*GPURUN, "host", "add", "box", target, "-y"], env=stranger.env, cwd=stranger.home) as person:
        person.expect("Is this the host's key?")
        person.type("n")
        assert person.wait() == 125
    assert stranger.known_hosts.read_text() == ""


def test_a_new_address_takes_the_runs_along(bare_host: LabHost, stranger: Laptop, tmp_path: Path) -> None:
    shown = fingerprint(bare_host, tmp_path)
    target = f"{ADA.name}@127.0.0.1:{bare_host.sshd.port}"
    stranger.gpurun("host", "add", "old", target, "--accept-key", shown)
    project = stranger.project({"train.py": TRAIN})
    run = stranger.gpurun("submit", "train.py", "--gpus", "0", "-H", "old", cwd=project).stdout.strip()
    stranger.gpurun("wait", run, cwd=project)
    again = f"ssh -p {bare_host.sshd.port} {ADA.name}@localhost"
    updated = stranger.gpurun("host", "add", "old", again, "--accept-key", shown)
    assert "old is updated" in updated.stderr
    assert "trained" in stranger.gpurun("logs", run, cwd=project).stdout
    stranger.gpurun("host", "add", "new", again)  # the same machine under another name
    stranger.gpurun("host", "rm", "old")
    assert stranger.gpurun("path", run, cwd=project).stdout.startswith(("new:", "localhost:", f"{ADA.name}@localhost:"))


def test_the_image_is_made_ready_in_the_background(host: LabHost, laptop: Laptop) -> None:
    added = laptop.gpurun("host", "add", "ada", "--json", check=False)
    assert added.json["image"]
    ready = laptop.gpurun("host", "prepare", "ada", timeout=900)  # waits for what was begun
    assert "gpurun/pytorch:v2.8-" in ready.stderr
    assert "is ready on ada" in ready.stderr
    assert list((host.home() / ".gpurun/cache/about").iterdir())  # what it has is known before the first run


# --- check


def lines_of(laptop: Laptop, alias: str) -> dict[str, tuple[str, str, str]]:
    report = laptop.gpurun("host", "check", alias, "--json", check=False).json
    return {each["topic"]: (each["status"], each["found"], each["mend"]) for each in report["findings"]}


def test_a_well_host(host: LabHost, laptop: Laptop) -> None:
    told = laptop.gpurun("host", "check", "ada", check=False)
    *_, last = told.stdout.splitlines()
    assert re.fullmatch(r"\d+ ok(, 1 warning|, 1 to fix)?", last), told.stdout
    assert told.stderr == ""
    found = lines_of(laptop, "ada")
    assert [topic for topic, (status, _, _) in found.items() if status != "ok"] in ([], ["disk"]), found
    assert {"connection", "port forward", "socket forward", "engine", "GPUs", "container toolkit", "clock"} <= set(
        found
    )


def test_forwards_that_are_forbidden_are_noticed(host: LabHost, laptop: Laptop) -> None:
    host.sshd.start("AllowTcpForwarding no")
    found = lines_of(laptop, "ada")
    assert found["port forward"][0] == "warn"
    assert "AllowTcpForwarding yes" in found["port forward"][2]
    host.sshd.start("AllowStreamLocalForwarding no")
    laptop.run("ssh", "-F", "/dev/null", "-o", f"ControlPath={socket_of(laptop)}", "-O", "exit", "ada")
    found = lines_of(laptop, "ada")
    assert (found["port forward"][0], found["socket forward"][0]) == ("ok", "warn")


def socket_of(laptop: Laptop) -> Path:
    (found,) = (laptop.home / "run/gpurun/ssh").iterdir()
    return found


def test_what_is_missing_comes_with_its_mending(host: LabHost, laptop: Laptop) -> None:
    (host.home() / ".bashrc").write_text("echo Welcome\n")
    host.hide("rsync")
    host.gpus.fail()
    found = lines_of(laptop, "ada")
    assert found["rsync there"][0] == "fail"
    assert "apt install rsync" in found["rsync there"][2]
    assert found["start-up files"][:2] == (
        "fail",
        "a start-up file of the shell there prints 'Welcome' in front of every answer, which breaks rsync",
    )
    assert found["GPUs"][0] == "fail"
    told = laptop.gpurun("host", "check", "ada", check=False)
    assert told.returncode == 125


def test_no_right_to_the_engine(host: LabHost, laptop: Laptop) -> None:
    found = lines_of(laptop, CARL.alias)
    assert found["engine"][0] == "fail"
    assert f"sudo usermod -aG docker {CARL.name}" in found["engine"][2]
    laptop.hosts_file.write_text("")
    found = lines_of(laptop, SUE.alias)
    assert found["engine"][0] == "fail"
    assert "sudo -n docker" in found["engine"][2]


def test_the_engine_through_sudo_is_proposed(host: LabHost, laptop: Laptop) -> None:
    laptop.hosts_file.write_text(f'[hosts.sue]\nbase_image = "{BASE_IMAGE}"\n')
    laptop.gpurun("host", "add", "sue", "-y", check=False)
    assert 'engine = "sudo -n docker"' in laptop.hosts_file.read_text()
    assert lines_of(laptop, "sue")["engine"][0] == "ok"


def test_a_host_without_an_engine(bare_host: LabHost, laptop: Laptop) -> None:
    found = lines_of(laptop, "bare")
    assert found["engine"][:2] == ("warn", 'no docker on this host: jobs run without one (runtime = "bare")')
    assert "torch 2.8.0" in found["torch"][1]


def test_a_shared_home(bare_host: LabHost, twin: LabHost, laptop: Laptop) -> None:
    laptop.gpurun("ps", "-H", "bare")
    assert lines_of(laptop, "twin")["shared home"][1] == "2 machines share gpurun's folder"


def test_a_host_out_of_reach(host: LabHost, laptop: Laptop) -> None:
    host.sshd.stop()
    told = laptop.gpurun("host", "check", "ada", check=False)
    assert told.returncode == 255
    assert "FAIL  connection" in told.stdout
    assert told.stdout.endswith("1 ok, 1 to fix\n")


# --- ls, use


def test_the_list_of_hosts(host: LabHost, laptop: Laptop) -> None:
    laptop.hosts_file.write_text("[hosts.ada]\n[hosts.gone]\naddress = { host = '127.0.0.1', port = 1 }\n")
    laptop.gpurun("host", "use", "ada")
    listed = {each["name"]: each for each in laptop.gpurun("host", "ls", "--json").json}
    assert (listed["ada"]["reachable"], listed["ada"]["default"]) == (True, True)
    assert len(listed["ada"]["gpus"]) == len(host.gpus.uuids)
    assert (listed["gone"]["reachable"], listed["gone"]["host_id"]) == (False, None)
    shown = laptop.gpurun("host", "ls").stdout
    assert "ada *" in shown
    assert "no answer" in shown


# --- leave


def test_leaving_brings_everything_home_and_leaves_no_trace(bare_host: LabHost, laptop: Laptop) -> None:
    laptop.gpurun("host", "add", "bare", "-y", check=False)
    project = laptop.project({"train.py": TRAIN})
    run = laptop.gpurun("submit", "train.py", "--gpus", "0", "-H", "bare", cwd=project).stdout.strip()
    laptop.gpurun("wait", run, cwd=project)
    (bare_host.home() / ".gpurun/keep-me").write_text("not gpurun's")
    left = laptop.gpurun("host", "leave", "bare", "-y", cwd=project)
    assert "bare can be given back" in left.stderr
    assert (project / "fetched" / run / "best.ckpt").read_text() == "weights"
    assert [path.name for path in (bare_host.home() / ".gpurun").iterdir()] == ["keep-me"]
    assert not (bare_host.root / f"tmp/gpurun-{ADA.uid}").exists()
    assert bare_host.processes() == []
    assert "[hosts.bare]" not in laptop.hosts_file.read_text()
    told = laptop.gpurun("status", run, cwd=project).stdout
    assert f"{run} succeeded" in told
    assert f"{run} was removed from bare on" in " ".join(told.split())
    assert laptop.gpurun("logs", run, cwd=project).stdout == (project / "fetched" / run / "_gpurun/log").read_text()


def test_leaving_refuses_while_a_run_is_live(bare_host: LabHost, laptop: Laptop) -> None:
    project = laptop.project({"train.py": "import time\nprint('up', flush=True)\ntime.sleep(300)\n"})
    run = laptop.gpurun("submit", "train.py", "--gpus", "0", "-H", "bare", cwd=project).stdout.strip()
    refused = laptop.gpurun("host", "leave", "bare", "-y", cwd=project, check=False)
    assert refused.returncode == 2
    assert f"bare still runs {run}" in refused.stderr
    left = laptop.gpurun("host", "leave", "bare", "-y", "--stop", cwd=project)
    assert "can be given back" in left.stderr
    assert bare_host.processes() == []


def test_leaving_asks_one_question_and_no_changes_nothing(bare_host: LabHost, laptop: Laptop) -> None:
    project = laptop.project({"train.py": TRAIN})
    run = laptop.gpurun("submit", "train.py", "--gpus", "0", "-H", "bare", cwd=project).stdout.strip()
    laptop.gpurun("wait", run, cwd=project)
    with Terminal([*GPURUN, "host", "leave", "bare"], env=laptop.env, cwd=project) as person:
        person.expect("1 to be fetched")
        person.expect("Leave bare? [y/N]")
        person.type("n")
        assert person.wait() == 1, person.shown
    assert (bare_host.home() / ".gpurun/runs" / run).is_dir()
    with Terminal([*GPURUN, "host", "leave", "bare"], env=laptop.env, cwd=project) as person:
        person.expect("[y/N]")
        person.type("y")
        assert person.wait() == 0, person.shown
    assert person.shown.count("[y/N]") == 1
    assert "(1 of 1)" in person.shown
    assert not (bare_host.home() / ".gpurun").exists()


def test_data_is_removed_only_when_that_is_said(bare_host: LabHost, laptop: Laptop) -> None:
    laptop.gpurun("ps", "-H", "bare")
    (bare_host.home() / ".gpurun/data/imagenet/train").mkdir(parents=True)
    for folder in ("data", "data/imagenet", "data/imagenet/train"):
        shutil.chown(bare_host.home() / ".gpurun" / folder, ADA.uid, ADA.uid)
    refused = laptop.gpurun("host", "leave", "bare", check=False)
    assert refused.returncode == 2
    assert "imagenet" in refused.stderr
    kept = laptop.gpurun("host", "leave", "bare", "--keep-data", "-y")
    assert "kept there: data/imagenet" in kept.stderr
    assert (bare_host.home() / ".gpurun/data/imagenet").is_dir()


def test_a_wrong_key_is_told_by_add(bare_host: LabHost, laptop: Laptop) -> None:
    make_key(laptop.home / ".ssh/id_ed25519", "another")
    told = laptop.gpurun("host", "add", "bare", check=False)
    assert told.returncode == 255
    assert "did not let" in told.stderr
