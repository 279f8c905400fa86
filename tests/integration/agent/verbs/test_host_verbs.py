"""`facts` and `check`, asked of a real agent."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

from tests.support.agent_host import AgentHost


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
    entry = agent.agent / "__main__.py"
    entry.write_text("from gpurun.agent import frames\nframes.Frames.BEAT_EVERY = 3600.0\n" + entry.read_text())
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
        assert asked.wait(60) == 0  # long before the next beat
    assert not Path(echo["socket"]).parent.exists()


def test_a_check_without_its_stream(agent: AgentHost) -> None:
    found = agent.ask("check", stream=False)
    assert found["echo"] is None
    assert found["rsync"] is None
    assert found["ends_at_logout"] is False
