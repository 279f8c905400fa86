"""`leave`, asked of a real agent: what is gpurun's goes, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.verbs import leave
from tests.support.agent_host import AgentHost


def stamps(seen: dict[str, Any]) -> dict[str, str]:
    """What a laptop agrees to when it has seen this."""
    return {name: folder["stamp"] for name, folder in seen["data"].items()}


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
    assert (kept["removed"], list(kept["data"]), kept["left"]) == ([run.id], ["imagenet"], [])
    assert kept["foreign"] == [str(root / "not gpurun's")]
    assert sorted(path.name for path in root.iterdir()) == ["data", "not gpurun's"]
    agent.ask("leave", wipe=True, runs=[], data=stamps(kept))
    assert [path.name for path in root.iterdir()] == ["not gpurun's"]


def test_leaving_keeps_what_is_among_the_runs_and_is_none_that_it_can_look_at(agent: AgentHost) -> None:
    run = agent.submit("open('result', 'w').write('5 days')")
    agent.wait(run)
    Path(run.job).unlink()  # the disk lost it
    notes = Path(agent.paths.runs, "notes.txt")
    notes.write_text("the user's")
    half = Path(agent.paths.runs, ".new-0123456789abcdef")
    half.mkdir()
    kept = [str(notes), run.root]
    assert agent.ask("leave", wipe=False)["foreign"] == kept
    assert agent.ask("leave", wipe=True, runs=[], data={})["foreign"] == kept
    assert (Path(run.workspace, "result").read_text(), notes.exists(), half.exists()) == ("5 days", True, False)


def test_leaving_refuses_a_live_run(agent: AgentHost) -> None:
    run = agent.submit("import time; print('up', flush=True); time.sleep(600)")
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
    stamps = {run.id: agent.ask("unfetched", runs=[run.id])["held"][run.id]["stamp"]}
    Path(run.workspace, "evaluation.csv").write_text("5 hours")
    assert agent.refused("leave", wipe=True, runs=[run.id], stamps=stamps)["code"] == "changed_since"
    assert Path(run.job).exists()


def test_leaving_refuses_when_data_came_since_it_was_agreed(agent: AgentHost) -> None:
    agent.ask("facts")
    data = Path(agent.paths.root) / "data/imagenet/train"
    data.mkdir(parents=True)
    assert agent.refused("leave", wipe=True, runs=[], data={"cifar": "0.0.0"})["code"] == "more_data"
    assert data.is_dir()
    agent.ask("leave", wipe=True, runs=[], data=stamps(agent.ask("leave", wipe=False)))
    assert not Path(agent.paths.root).exists()


@pytest.mark.parametrize("change", ["add", "write", "rename", "remove"])
def test_leaving_refuses_when_a_data_folder_has_changed_since(agent: AgentHost, change: str) -> None:
    run = agent.submit("print('done')")
    agent.wait(run)
    data = Path(agent.paths.root) / "data/imagenet"
    (data / "train").mkdir(parents=True)
    (data / "train/1.jpg").write_text("a cat")
    seen = agent.ask("leave", wipe=False)
    assert seen["data"]["imagenet"]["bytes"] == len("a cat")
    if change == "add":
        (data / "train/2.jpg").write_text("")
    elif change == "write":
        (data / "train/1.jpg").write_text("a dog")
    elif change == "rename":
        (data / "train/1.jpg").rename(data / "train/3.jpg")
    else:
        (data / "train/1.jpg").unlink()
    refused = agent.refused("leave", wipe=True, runs=[run.id], data=stamps(seen))
    assert (refused["code"], "imagenet" in refused["what"]) == ("changed_since", True)
    assert Path(run.job).exists()  # nothing at all was removed
    assert list(data.rglob("*.jpg")) or change == "remove"


@pytest.fixture
def brought(agent: AgentHost) -> AgentHost:
    """The host with its agent where a laptop brings it, and where it removes itself."""
    place = Path(agent.paths.agents) / "0123456789abcdef"
    place.parent.mkdir(parents=True)
    agent.agent = agent.agent.rename(place)
    return agent


@pytest.mark.parametrize("engine", [None, ["docker"]])
def test_leaving_without_runs_and_with_data_answers(brought: AgentHost, engine: list[str] | None) -> None:
    """Whatever module the answer needs is loaded before the agent's folder goes."""
    docker = brought.root / "bin/docker"
    docker.write_text(f'#!/bin/sh\necho "$1" >>{brought.root}/asked\nexit 1\n')
    docker.chmod(0o755)
    brought.ask("facts", engine=engine)
    (Path(brought.paths.root) / "data/imagenet/train").mkdir(parents=True)
    Path(brought.paths.facts).parent.mkdir(exist_ok=True)
    known = brought.ask("facts", engine=engine) | {
        "engine": {"argv": ["docker"]}, "engine_error": None, "gpus_error": None, "asked_at": time.time(),
        "engine_asked": engine,
    }  # fmt: skip
    Path(brought.paths.facts).write_text(json.dumps(known))  # so that nothing else loads the engine's module
    seen = brought.ask("leave", wipe=False)
    left = brought.ask("leave", wipe=True, runs=[], data=stamps(seen), engine=engine)
    assert (left["left"], left["kept"], left["data"]) == ([], [], {})
    assert "images" in (brought.root / "asked").read_text()
    assert not Path(brought.paths.root).exists()


def test_leaving_imports_nothing_once_the_agent_is_gone(brought: AgentHost, tmp_path: Path) -> None:
    """By the trace of Python itself: no file of the agent is looked for behind its removal."""
    brought.ask("facts")
    traced = brought.agent / "__main__.py"
    text = traced.read_text()
    hook = f"""
import os
class Trap:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("gpurun") and not os.path.exists({str(traced)!r}):
            open({str(tmp_path / "imported")!r}, "a").write(name)
sys.meta_path.insert(0, Trap())
"""
    traced.write_text(text.replace("import sys\n", "import sys\n" + hook, 1))
    brought.ask("leave", wipe=True, runs=[], data={}, revoke="gpurun:ada:box")
    assert not brought.agent.exists()
    assert not (tmp_path / "imported").exists()


def test_leaving_again_finishes_what_was_not_answered(brought: AgentHost) -> None:
    run = brought.submit("print('done')")
    brought.wait(run)
    copy = shutil.copytree(brought.agent, brought.root / "copy")
    assert brought.ask("leave", wipe=True, runs=[run.id], data={})["removed"] == [run.id]
    shutil.copytree(copy, brought.agent)  # the laptop did not hear that, and brings the agent again
    again = brought.ask("leave", wipe=True, runs=[run.id], data={})
    assert (again["removed"], again["left"]) == ([], [])
    assert not Path(brought.paths.root).exists()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A disk of a rented box, with the user's files in it, under names that gpurun has too."""
    root = tmp_path / "workspace"
    for path in ("cache/models/llama.bin", "data/mine/1.jpg", "runs/exp1/events", "runs/exp-2024/log", "agent/notes"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def files_in(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def used(agent: AgentHost) -> RunPaths:
    """A run, and data, on the host."""
    agent.paths = HostPaths(agent.ask("facts")["root"])
    run = agent.submit("print('done')")
    agent.wait(run)
    Path(agent.ask("data", name="imagenet")["path"], "2.jpg").write_text("gpurun's")
    return run


def left_by_0_1_0(agent: AgentHost, root: Path) -> None:
    """Make `root` one that gpurun 0.1.0 used as it was named."""
    agent.paths = HostPaths(str(root))
    (root / ("host-id-" + hashlib.sha256(agent.machine_id.read_bytes()).hexdigest()[:12])).write_text(
        "0123456789abcdef"
    )


def test_root_with_the_users_files_keeps_all_of_them(agent: AgentHost, workspace: Path) -> None:
    theirs = files_in(workspace)
    agent.profile_root = str(workspace)
    run = used(agent)
    assert agent.paths.root == str(workspace / ".gpurun")
    assert {path.name for path in workspace.iterdir()} == {"cache", "data", "runs", "agent", ".gpurun"}
    seen = agent.ask("leave", wipe=False)
    assert (list(seen["data"]), seen["foreign"]) == (["imagenet"], [])
    agent.ask("leave", wipe=True, runs=[run.id], data=stamps(seen))
    assert files_in(workspace) == theirs
    assert not (workspace / ".gpurun").exists()


def test_root_that_is_empty_now_may_get_files_of_the_users(agent: AgentHost, tmp_path: Path) -> None:
    agent.profile_root = str(tmp_path / "volume")
    run = used(agent)
    (tmp_path / "volume/data").mkdir()
    (tmp_path / "volume/data/mine").write_text("mine")
    seen = agent.ask("leave", wipe=False)
    agent.ask("leave", wipe=True, runs=[run.id], data=stamps(seen))
    assert files_in(tmp_path / "volume") == {"data/mine": "mine"}


def test_root_of_0_1_0_is_found_again(agent: AgentHost, workspace: Path) -> None:
    left_by_0_1_0(agent, workspace)
    agent.profile_root = str(workspace)
    run = used(agent)
    assert agent.paths.root == str(workspace)
    assert run.root == str(workspace / "runs" / run.id)
    assert run.id in [record["id"] for record in agent.ask("ps", all=True, ids=None)["runs"]]


def submitted_by_0_1_0(agent: AgentHost, root: Path) -> RunPaths:
    """A run of another laptop, whose gpurun is older and takes `root` as it is named, though a newer one has been here."""
    named, agent.profile_root = agent.profile_root, str(root)
    # Without its id the newer one's root is not seen.
    own = [path.rename(agent.root / path.name) for path in (root / ".gpurun").glob("host-id*")]
    left_by_0_1_0(agent, root)
    run = agent.submit("open('result', 'w').write('5 days')")
    agent.wait(run)
    for path in own:
        path.rename(root / ".gpurun" / path.name)
    agent.profile_root, agent.paths = named, HostPaths(str(root / ".gpurun"))
    return run


def test_run_that_an_older_gpurun_made_in_the_root_of_a_newer_one_is_found_by_each_verb(
    agent: AgentHost, workspace: Path
) -> None:
    agent.profile_root = str(workspace)
    mine = used(agent)
    theirs = submitted_by_0_1_0(agent, workspace)
    assert theirs.root == str(workspace / "runs" / theirs.id)
    assert {record["id"] for record in agent.ask("ps", all=True, ids=None)["runs"]} == {mine.id, theirs.id}
    assert agent.status(theirs)["state"] == "succeeded"
    assert [file["as"] for file in agent.ask("outputs", run=theirs.id)["files"] if file["as"] == "result"]
    assert list(agent.ask("unfetched", runs=[theirs.id])["held"]) == [theirs.id]
    agent.resume(theirs)
    assert agent.wait(theirs)["attempt"] == 2
    new = agent.submit("pass")
    agent.wait(new)
    assert new.root == str(workspace / ".gpurun/runs" / new.id)
    assert agent.ask("rm", runs=[theirs.id, new.id])["removed"] == [theirs.id, new.id]
    assert not Path(theirs.root).exists()
    assert sorted(path.name for path in (workspace / "runs").iterdir()) == ["exp-2024", "exp1"]


def test_leaving_a_root_of_two_versions_removes_no_run_that_was_not_agreed_and_then_all(
    agent: AgentHost, workspace: Path
) -> None:
    theirs = files_in(workspace)
    agent.profile_root = str(workspace)
    mine = used(agent)
    other = submitted_by_0_1_0(agent, workspace)
    seen = agent.ask("leave", wipe=False)
    refused = agent.refused("leave", wipe=True, runs=[mine.id], data=stamps(seen))
    assert (refused["code"], other.id in refused["what"]) == ("more_runs", True)
    left = agent.ask("leave", wipe=True, runs=[mine.id, other.id], data=stamps(seen))
    assert (sorted(left["removed"]), left["left"]) == (sorted([mine.id, other.id]), [])
    assert str(workspace / "data/mine") in left["foreign"]
    assert files_in(workspace) == theirs


def test_leaving_names_the_runs_that_are_not_in_the_profiles_root(agent: AgentHost, tmp_path: Path) -> None:
    """They were made before the profile had a root, or are another profile's: nobody has fetched them for this question."""
    before = agent.submit("print('before')")
    agent.wait(before)
    first = agent.paths.runs
    agent.profile_root = str(tmp_path / "volume")
    run = used(agent)
    told = [{"path": first, "why": "its runs are not in the host's root: " + before.id}]
    seen = agent.ask("leave", wipe=False)
    assert seen["kept"] == told
    assert agent.ask("leave", wipe=True, runs=[run.id], data=stamps(seen))["kept"] == told
    assert Path(before.log).read_text() == "before\n"


def test_leaving_a_root_of_0_1_0_removes_what_is_recognised_and_names_the_rest(
    agent: AgentHost, workspace: Path
) -> None:
    theirs = files_in(workspace)
    left_by_0_1_0(agent, workspace)
    agent.profile_root = str(workspace)
    for path in ("agent/0123456789abcdef/__main__.py", ".gpurun/agent/0123456789abcdef/__main__.py"):
        (workspace / path).parent.mkdir(parents=True)
        (workspace / path).write_text("an agent")
    run = used(agent)
    seen = agent.ask("leave", wipe=False)
    kept = [str(workspace / path) for path in (
        "agent/notes", "cache/models", "data/imagenet", "data/mine", "runs/exp-2024", "runs/exp1"
    )]  # fmt: skip
    assert (seen["data"], seen["foreign"]) == ({}, kept)
    left = agent.ask("leave", wipe=True, runs=[run.id], data={})
    assert (left["removed"], left["left"], left["foreign"]) == ([run.id], [], kept)
    assert files_in(workspace) == {**theirs, "data/imagenet/2.jpg": "gpurun's"}


def test_leaving_a_home_that_0_1_0_used_as_root_spares_the_agent_of_the_runs_beside_it(agent: AgentHost) -> None:
    """That of another profile, without a root: its supervisors run from that folder."""
    theirs = agent.submit("print('done')")
    agent.wait(theirs)
    place = Path(agent.paths.agents, "0123456789abcdef")
    place.mkdir(parents=True)
    left_by_0_1_0(agent, agent.home)
    agent.profile_root = str(agent.home)
    left = agent.ask("leave", wipe=True, runs=[], data={})
    assert (left["shared"], left["left"]) == (False, [])
    assert place.is_dir()
    assert Path(theirs.job).exists()


def test_link_to_a_folder_with_other_things_is_no_folder_of_gpuruns_own(agent: AgentHost, workspace: Path) -> None:
    theirs = files_in(workspace)
    Path(agent.paths.root).symlink_to(workspace)
    run = used(agent)
    agent.ask("leave", wipe=True, runs=[run.id], data=stamps(agent.ask("leave", wipe=False)))
    assert files_in(workspace) == theirs


def test_leaving_unlinks_data_that_lies_elsewhere_and_names_it(agent: AgentHost, workspace: Path) -> None:
    theirs = files_in(workspace)
    agent.ask("facts")
    Path(agent.paths.data("")).symlink_to(workspace / "data")
    left = agent.ask("leave", wipe=True, runs=[], data=stamps(agent.ask("leave", wipe=False)))
    assert left["foreign"] == [str(workspace / "data")]
    assert files_in(workspace) == theirs


@pytest.mark.skipif(os.getuid() != 0, reason="mounts")
@pytest.mark.parametrize("place", [".gpurun", ".gpurun/cache", ".gpurun/runs", ".gpurun/data"])
def test_leaving_a_root_that_is_a_mount_point_empties_it(agent: AgentHost, place: str) -> None:
    folder = agent.home / place
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        run = used(agent)
        left = agent.ask("leave", wipe=True, runs=[run.id], data=stamps(agent.ask("leave", wipe=False)))
        assert left["removed"] == [run.id]
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["umount", folder], check=True)


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


def test_leaving_a_shared_home_spares_the_other_machine(agent: AgentHost) -> None:
    theirs = agent.submit("print('theirs')")
    agent.wait(theirs)
    agent.machine_id.write_text("another machine")
    mine = agent.submit("print('mine')")
    agent.wait(mine)
    left = agent.ask("leave", wipe=True, runs=[mine.id])
    assert (left["removed"], left["shared"]) == ([mine.id], True)
    assert json.loads(Path(theirs.job).read_text())["id"] == theirs.id
