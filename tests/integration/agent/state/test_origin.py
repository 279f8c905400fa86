"""Machines that are cloned, shared, renamed, reinstalled or gone: whose a run is, and what is done to it in doubt."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.lifecycle import supervisor
from gpurun.agent.outputs import container_files
from gpurun.agent.paths import RunPaths
from gpurun.agent.state import origin
from tests.integration.agent.lifecycle.test_proof_of_life import WAITS, let_end, starts
from tests.support.agent_host import AgentHost
from tests.support.waiting import eventually
from tests.unit.agent.state.test_origin import a_run

CARD = "52:54:00:12:34:56"


def hardware(agent: AgentHost, **signs: str) -> None:
    """Let the host's system tell these: files of DMI, `mac`, and `instance`, the cloud's."""
    system = agent.root / f"system-{secrets.token_hex(4)}"
    for name, value in signs.items():
        places = {"mac": "sys/class/net/eth0/address", "instance": "var/lib/cloud/data/instance-id"}
        file = system / places.get(name, f"sys/class/dmi/id/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")
    if "mac" in signs:
        (system / "sys/class/net/eth0/device").mkdir()
        (system / "sys/class/net/eth0/addr_assign_type").write_text("0\n")
    agent.more_env["GPURUN_SYSTEM"] = str(system)


def boot(agent: AgentHost) -> None:
    agent.end_all()
    agent.boot_id.write_text(secrets.token_hex(16))


def another(agent: AgentHost, root: Path, *, home: Path | None = None) -> AgentHost:
    """A second machine of the same image: the same machine id, another boot; `home`: shared with it."""
    root.mkdir()
    other = AgentHost(root, agent.python)
    other.machine_id.write_text(agent.machine_id.read_text())
    if home is not None:
        other.home, other.paths = home, agent.paths
    return other


def change_job(run: RunPaths, **host: Any) -> None:
    """What its job.json says of its host; None takes a field away."""
    job = json.loads(Path(run.job).read_text())
    job["host"].update(host)
    for key in [key for key, value in host.items() if value is None]:
        del job["host"][key]
    Path(run.job).write_text(json.dumps(job))


def test_copy_of_a_home_starts_and_ends_no_run_of_the_original(agent: AgentHost, tmp_path: Path) -> None:
    run = agent.submit(WAITS, retries=1)
    agent.until_running(run, b"here")
    clone = another(agent, tmp_path / "clone")
    try:
        shutil.copytree(agent.home, clone.home, dirs_exist_ok=True, symlinks=True)
        copy = clone.paths.run(run.id)
        for _ in range(2):
            (record,) = clone.ask("ps")["runs"]
        assert (record["state"], record["live"], record["attempts"]) == (words.UNKNOWN, False, [])
        assert "is a copy" in record["message"]
        assert "--abandon" in record["next"]
        assert clone.refused("stop", runs=[run.id], grace=0, force=True)["code"] == "elsewhere"
        assert "--abandon" in clone.refused("rm", runs=[run.id])["next"]
        assert not Path(copy.exit).exists()
    finally:
        clone.end_all()
    assert agent.status(run)["state"] == words.RUNNING
    assert starts(run) == ["1"]


def test_node_of_one_image_that_shares_the_home_leaves_a_live_run_alone(agent: AgentHost, tmp_path: Path) -> None:
    """Nothing but the boot tells the nodes from one another: the supervisor's lock in the run's folder does."""
    run = agent.submit(WAITS, retries=1)
    agent.until_running(run, b"here")
    node = another(agent, tmp_path / "node", home=agent.home)
    (record,) = node.ask("ps")["runs"]
    assert (record["state"], record["attempts"]) == (words.RUNNING, [])
    let_end(run)
    assert agent.wait(run)["exit_code"] == 4


def test_disk_that_was_cloned_starts_no_run_and_has_an_id_of_its_own(agent: AgentHost) -> None:
    hardware(agent, mac=CARD)
    run = agent.submit(WAITS, retries=1)
    agent.until_running(run, b"here")
    host_id = agent.ask("ps")["host_id"]
    boot(agent)
    hardware(agent, mac="52:54:00:99:99:99")
    answer = agent.ask("ps")
    (record,) = answer["runs"]
    assert (record["state"], record["attempts"]) == (words.UNKNOWN, [])
    assert "its network cards differ" in record["message"]
    assert agent.lock_holders(f"run-{run.id}") == []
    assert answer["host_id"] != host_id
    hardware(agent, mac=CARD)
    assert agent.ask("ps")["host_id"] == host_id


def test_machine_that_was_renamed_and_rebooted_is_the_same(agent: AgentHost) -> None:
    hardware(agent, mac=CARD, product_uuid="one")
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    boot(agent)
    change_job(run, signs={**json.loads(Path(run.job).read_text())["host"]["signs"], "hostname": "former"})
    record = agent.wait(run)
    assert (record["state"], record["reason"]) == (words.LOST, "reboot")


def test_run_of_a_gpurun_that_noted_no_signs_is_tended_as_before(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    boot(agent)
    change_job(run, signs=None, runs=None)
    hardware(agent, mac="52:54:00:99:99:99")
    assert agent.wait(run)["reason"] == "reboot"


def test_host_id_of_a_gpurun_that_noted_no_signs_is_kept(agent: AgentHost) -> None:
    agent.ask("ps")
    (file,) = Path(agent.paths.root).glob("host-id-*")
    file.write_text("0123456789abcdef\n")
    assert agent.ask("ps")["host_id"] == "0123456789abcdef"


def test_run_of_a_machine_that_is_gone_can_be_given_up_removed_and_resumed(agent: AgentHost) -> None:
    runs = [agent.submit(WAITS, retries=1) for _ in range(2)]
    for run in runs:
        agent.until_running(run, b"here")
    boot(agent)
    agent.machine_id.write_text(secrets.token_hex(16))  # reinstalled
    first, second = runs
    error = agent.refused("stop", runs=[first.id], grace=0, force=True)
    assert error["code"] == "elsewhere"
    assert f"gpurun stop --abandon {first.id}" in error["next"]
    for _ in range(2):
        for record in agent.ask("stop", runs=[first.id, second.id], abandon=True)["runs"]:
            assert (record["state"], record["reason"]) == (words.LOST, "abandoned")
    assert agent.ask("rm", runs=[first.id])["removed"] == [first.id]
    agent.resume(second)
    agent.until_running(second, b"here")
    let_end(second)
    assert agent.wait(second)["state"] == words.FAILED
    assert starts(second) == ["1", "2", "3"]  # that one was retried: it is this machine's now


def test_abandon_of_a_run_that_is_not_gone_is_refused(agent: AgentHost, tmp_path: Path) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    assert agent.refused("stop", runs=[run.id], abandon=True)["code"] == "not_abandoned"
    node = another(agent, tmp_path / "node", home=agent.home)
    node.machine_id.write_text(secrets.token_hex(16))
    error = node.refused("stop", runs=[run.id], abandon=True)
    assert (error["code"], "is live" in error["what"]) == ("not_abandoned", True)
    assert agent.status(run)["state"] == words.RUNNING


def test_job_of_a_run_that_was_given_up_by_mistake_is_killed(agent: AgentHost, tmp_path: Path) -> None:
    """Its file system shows no lock to other machines, and its user took the machine for gone."""
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    pid = json.loads(Path(run.keeper).read_text())["pid"]
    os.unlink(run.life)
    node = another(agent, tmp_path / "node", home=agent.home)
    node.machine_id.write_text(secrets.token_hex(16))
    assert node.ask("stop", runs=[run.id], abandon=True)["runs"][0]["reason"] == "abandoned"
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    eventually(lambda: not agent.lock_holders(f"run-{run.id}"))
    assert node.status(run)["reason"] == "abandoned"


def test_ended_run_of_a_home_that_was_moved_goes_on(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    let_end(run)
    agent.wait(run)
    change_job(run, runs="/where/it/was", signs={"product_uuid": "another"})
    agent.resume(run)
    assert agent.wait(run)["attempt"] == 2


def test_home_with_a_run_in_doubt_is_not_emptied_by_leave(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    boot(agent)
    change_job(run, runs="/where/it/was")
    agent.ask("leave", wipe=True, runs=[], revoke=None)
    assert Path(run.job).exists()


def test_supervisor_that_copies_behind_the_end_keeps_no_next_one_from_showing_its_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path)
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path / "locks"))
    seen: list[bool] = []
    monkeypatch.setattr(supervisor, "supervise", lambda run: seen.append(origin.lives(run)))
    monkeypatch.setattr(container_files, "gather_at_end", lambda run, _: seen.append(origin.lives(run)))
    told, tell = os.pipe()
    supervisor._run_supervisor(run, supervisor._StartReport(tell))
    os.close(told)
    assert seen == [True, False]
