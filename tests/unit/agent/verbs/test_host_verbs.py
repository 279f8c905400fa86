"""`facts`, `check` and `leave`, asked of a real agent."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.paths import HostPaths
from gpurun.agent.verbs import leave
from tests.unit.agent.conftest import AgentHost
from tests.unit.agent.run_folder import RunFolder


def test_facts_of_a_plain_host(agent: AgentHost) -> None:
    found = agent.ask("facts")
    assert found["machine_id"] == agent.machine_id.read_text()
    assert found["boot_id"] == agent.boot_id.read_text()
    assert (found["gpus"], found["engine"], found["engine_error"], found["runtimes"]) == ([], None, None, ["bare"])
    assert found["root"] == agent.paths.root
    assert found["disk"]["free"] > 0
    assert found["memory"] > 0
    assert agent.ask("facts")["host_id"] == found["host_id"]


def test_two_machines_of_one_home_are_two_hosts(agent: AgentHost) -> None:
    first = agent.ask("facts")["host_id"]
    agent.machine_id.write_text("another machine")
    assert agent.ask("facts")["host_id"] != first
    assert agent.ask("check", stream=False)["home"]["machines"] == 2


def test_an_engine_that_the_profile_names_and_is_not_there(agent: AgentHost) -> None:
    found = agent.ask("facts", engine=["podman9"])
    assert found["engine"] is None
    assert found["engine_error"]["code"] == "engine_missing"


def test_nvidia_smi_that_fails_is_told_and_asked_again(agent: AgentHost) -> None:
    smi = agent.root / "bin/nvidia-smi"
    smi.write_text("#!/bin/sh\necho broken driver >&2\nexit 9\n")
    smi.chmod(0o755)
    assert "broken driver" in agent.ask("facts")["gpus_error"]["what"]
    assert not Path(agent.paths.facts).exists()


def test_an_echo_answers_and_goes_with_the_client(agent: AgentHost) -> None:
    argv = [agent.python, "-I", "-S", str(agent.agent), "check"]
    question = {"nonce": "n0nce", "protocol": 1, "owner": "ada", "engine": None, "root": None}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=agent.env) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdin.write(json.dumps(question).encode() + b"\n")
        asked.stdin.close()
        while asked.stdout.readline() != b"n0nce\n":
            pass
        echo = json.loads(asked.stdout.readline())["answer"]["echo"]
        with socket.create_connection(("127.0.0.1", echo["port"]), timeout=10) as client:
            client.sendall(b"over a port")
            assert client.recv(100) == b"over a port"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(echo["socket"])
            client.sendall(b"over a socket")
            assert client.recv(100) == b"over a socket"
        asked.stdout.close()
        assert asked.wait(timeout=4) == 0  # sooner than the next beat would have told it
    assert not Path(echo["socket"]).parent.exists()


def test_a_check_without_its_stream(agent: AgentHost) -> None:
    found = agent.ask("check", stream=False)
    assert found["echo"] is None
    assert found["rsync"] is None
    assert found["ends_at_logout"] is False


def test_leaving_takes_what_is_ours_and_nothing_else(agent: AgentHost) -> None:
    agent.ask("facts")
    run = agent.submit("print('done')")
    agent.wait(run)
    root = Path(agent.paths.root)
    (root / "not gpurun's").write_text("precious")
    (root / "data/imagenet/train").mkdir(parents=True)
    more = agent.refused("leave", wipe=True, runs=[], keep_data=True)  # it came after the laptop had looked
    assert more["code"] == "more_runs"
    assert Path(run.job).exists()
    kept = agent.ask("leave", wipe=True, runs=[run.id], keep_data=True)
    assert (kept["removed"], kept["data"], kept["left"]) == ([run.id], ["imagenet"], [])
    assert sorted(path.name for path in root.iterdir()) == ["data", "not gpurun's"]
    agent.ask("leave", wipe=True, runs=[], keep_data=False)
    assert [path.name for path in root.iterdir()] == ["not gpurun's"]


def test_leaving_refuses_a_live_run(agent: AgentHost) -> None:
    run = agent.submit("import time; print('up', flush=True); time.sleep(60)")
    agent.until_running(run, b"up")
    refused = agent.refused("leave", wipe=True, runs=[run.id])
    assert (refused["code"], refused["exit"]) == ("live", 2)
    assert run.id in refused["next"]
    assert Path(run.job).exists()


def test_leaving_spares_the_runs_of_others_and_what_they_need(agent: AgentHost) -> None:
    theirs, mine = agent.submit("print('theirs')", owner="bob"), agent.submit("print('mine')")
    for run in (theirs, mine):
        agent.wait(run)
    left = agent.ask("leave", wipe=True, runs=[mine.id], stays=[theirs.id], keep_data=False)
    assert (left["removed"], left["left"], left["shared"]) == ([mine.id], [], True)
    assert agent.status(theirs)["state"] == "succeeded"
    assert Path(agent.paths.cache).is_dir()


def test_leaving_a_host_with_more_runs_than_open_files_removes_them_all(agent: AgentHost) -> None:
    run = agent.submit("print('mine')")
    agent.wait(run)
    ids = [run.id, *(f"many-{number:04d}" for number in range(2 * leave.AT_ONCE))]
    for run_id in ids[1:]:
        copy = agent.paths.run(run_id)
        shutil.copytree(run.root, copy.root)
        job = json.loads(Path(copy.job).read_text())
        Path(copy.job).write_text(json.dumps({**job, "id": run_id}))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (5 * leave.AT_ONCE, limit[1]))  # which the agent inherits
    try:
        left = agent.ask("leave", wipe=True, runs=ids, keep_data=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert (sorted(left["removed"]), left["left"]) == (sorted(ids), [])


def test_leaving_refuses_a_run_that_was_written_to_since(agent: AgentHost) -> None:
    run = agent.submit("print('mine')")
    agent.wait(run)
    stamps = {run.id: agent.ask("holds", runs=[run.id])["held"][run.id]["stamp"]}
    Path(run.workspace, "evaluation.csv").write_text("5 hours")
    assert agent.refused("leave", wipe=True, runs=[run.id], stamps=stamps)["code"] == "changed_since"
    assert Path(run.job).exists()


def test_leaving_refuses_when_data_came_since_it_was_agreed(agent: AgentHost) -> None:
    agent.ask("facts")
    (Path(agent.paths.root) / "data/imagenet/train").mkdir(parents=True)
    assert agent.refused("leave", wipe=True, runs=[], data=["cifar"], keep_data=False)["code"] == "more_data"
    assert (Path(agent.paths.root) / "data/imagenet/train").is_dir()
    agent.ask("leave", wipe=True, runs=[], data=["imagenet"], keep_data=False)
    assert not Path(agent.paths.root).exists()


def test_leaving_spares_the_run_of_a_machine_that_is_no_more(agent: AgentHost) -> None:
    """Its disk was cloned, or its machine id made anew: nobody has looked at what that run wrote."""
    theirs = agent.submit("print('theirs')")
    agent.wait(theirs)
    for name in Path(agent.paths.root).glob("host-id*"):
        name.unlink()
    agent.machine_id.write_text("another machine")
    left = agent.ask("leave", wipe=True, runs=[])
    assert (left["removed"], left["shared"]) == ([], True)
    assert Path(theirs.log).read_text() == "theirs\n"


def test_leaving_removes_no_run_that_came_while_it_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))
    host = HostPaths(str(tmp_path / "root"))
    (Path(host.runs) / ".gone-train-9k2m").mkdir(parents=True)
    run = RunFolder(tmp_path / "root")
    with pytest.raises(AgentError) as error:
        leave._remove_ours(host, keep_data=False, left=[])
    assert error.value.code == "more_runs"
    assert run.root.is_dir()


def test_leaving_a_shared_home_spares_the_other_machine(agent: AgentHost) -> None:
    theirs = agent.submit("print('theirs')")
    agent.wait(theirs)
    agent.machine_id.write_text("another machine")
    mine = agent.submit("print('mine')")
    agent.wait(mine)
    left = agent.ask("leave", wipe=True, runs=[mine.id])
    assert (left["removed"], left["shared"]) == ([mine.id], True)
    assert json.loads(Path(theirs.job).read_text())["id"] == theirs.id


def test_one_key_is_revoked_and_the_others_stay(tmp_path: Path) -> None:
    keys = tmp_path / "authorized_keys"
    lines = [
        "# a comment\n",
        'from="10.0.0.0/8" ssh-ed25519 AAA gpurun:ada.laptop:box2\n',
        "ssh-ed25519 BBB gpurun:ada.laptop:box\n",
        "ssh-ed25519 CCC ada@laptop",
    ]
    keys.write_text("".join(lines))
    keys.chmod(0o600)
    assert leave.revoke(str(keys), "gpurun:ada.laptop:box") == 1
    assert keys.read_text() == "".join([lines[0], lines[1], lines[3]])
    assert keys.stat().st_mode & 0o777 == 0o600
    assert leave.revoke(str(keys), "gpurun:ada.laptop:box") == 0
    assert leave.revoke(str(tmp_path / "none"), "x") == 0
