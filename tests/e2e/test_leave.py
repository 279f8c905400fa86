"""`host leave` on a host of its own, for it takes everything away."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpurun.agent.sizes import size
from tests.e2e.conftest import REPOSITORY, Laptop

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

LOSES_THE_ANSWER = """
import gpurun.remote.wire
from gpurun.errors import ContactLost
ask = gpurun.remote.wire.Wire.ask
def lossy(self, verb, request, **more):
    answer = ask(self, verb, request, **more)
    if verb == "leave" and request["wipe"]:
        raise ContactLost("the connection broke off", "try again", where="demo")
    return answer
gpurun.remote.wire.Wire.ask = lossy
"""


@pytest.fixture
def embedded_host() -> Iterator[EmbeddedHost]:
    """In place of the one that all tests share."""
    from gpurun.demo.host import EmbeddedHost

    with tempfile.TemporaryDirectory(prefix="gpurun-host-") as directory, EmbeddedHost(Path(directory)) as host:
        yield host


def files_in(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_leaving_an_account_that_others_share_leaves_their_runs(
    laptop: Laptop, embedded_host: EmbeddedHost, tmp_path: Path
) -> None:
    bob = {**laptop.environment, "HOME": str(tmp_path), "USER": "bob", "LOGNAME": "bob"}
    colleague = replace(laptop, home=tmp_path, environment=bob)
    theirs, mine = colleague.submit("train.py", "--", "0", "0"), laptop.submit("train.py", "--", "0", "0")
    colleague.ok("wait", theirs)
    laptop.ok("wait", mine)
    done = laptop.gpurun("host", "leave", "demo", "-y")
    assert done.code == 0, done.err
    assert f"fetched into {laptop.project / 'fetched'}" in done.err.replace("\n", " ")
    assert "1 run of bob stay" in done.err
    runs = embedded_host.home / ".gpurun/runs"
    assert [path.name for path in runs.iterdir()] == [theirs]
    assert sorted(path.name for path in (laptop.project / "fetched").glob("train-*")) == [mine]
    colleague.ok("fetch", theirs)
    done = laptop.gpurun("host", "leave", "demo", "--also", "bob", "-y")
    assert done.code == 0, done.err
    assert not runs.exists()


def test_leaving_a_root_with_the_users_files_asks_once_and_brings_all_home(
    laptop: Laptop, embedded_host: EmbeddedHost, tmp_path: Path
) -> None:
    root = embedded_host.home / "workspace"
    for path in ("cache/llama.bin", "data/mine/1.jpg", "runs/exp1/events", "notes.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    theirs = files_in(root)
    profiles = laptop.home / ".config/gpurun/hosts.toml"
    profiles.parent.mkdir(parents=True, exist_ok=True)
    profiles.write_text(f"[hosts.demo]\nroot = {json.dumps(str(root))}\n")
    runs = [laptop.submit("train.py", "--", "0", "0") for _ in range(6)]
    laptop.ok("wait", *runs)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/2.jpg").write_text("pushed")
    laptop.ok("push", str(tmp_path / "sets"), "demo:imagenet")
    refused = laptop.gpurun("host", "leave", "demo")
    assert refused.code == 2
    asked = re.search(r"6 runs: 6 to be fetched \(([^)]+)\)", refused.err)
    assert asked is not None, refused.err
    assert "imagenet (" in refused.err
    assert "gpurun host leave demo -y" in refused.err
    assert not (laptop.project / "fetched").exists()
    done = laptop.gpurun("host", "leave", "demo", "-y", "--json")
    assert done.code == 0, done.err
    assert sorted(json.loads(done.out)["removed"]) == sorted(runs)
    assert [f"({number} of 6)" in done.err for number in range(1, 7)] == [True] * 6
    came = 0
    for run in runs:
        folder = laptop.project / "fetched" / run
        assert (folder / "weights.ckpt").stat().st_size == 1000
        came += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and ".gpurun" not in file.parts)
    assert asked[1] == size(came)
    assert files_in(root) == theirs
    assert "hosts.demo" not in profiles.read_text()


def test_leaving_whose_answer_is_lost_is_finished_by_the_next(
    laptop: Laptop, embedded_host: EmbeddedHost, tmp_path: Path
) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    profiles = laptop.home / ".config/gpurun/hosts.toml"
    profiles.parent.mkdir(parents=True, exist_ok=True)
    profiles.write_text("[hosts.demo]\n")
    (tmp_path / "sitecustomize.py").write_text(LOSES_THE_ANSWER)
    laptop.environment["PYTHONPATH"] = f"{tmp_path}:{REPOSITORY}"
    lost = laptop.gpurun("host", "leave", "demo", "-y")
    assert (lost.code, "the connection broke off" in lost.err) == (255, True)
    assert not (embedded_host.home / ".gpurun").exists()
    laptop.environment["PYTHONPATH"] = str(REPOSITORY)
    done = laptop.gpurun("host", "leave", "demo", "-y")
    assert done.code == 0, done.err
    assert "demo can be given back" in done.err
    assert "hosts.demo" not in profiles.read_text()
    assert laptop.json("ps", "-a", "-H", "demo")["runs"] == []


def test_open_service_is_stopped_and_does_not_keep_the_host(laptop: Laptop, embedded_host: EmbeddedHost) -> None:
    (laptop.project / "gpurun.toml").write_text('host = "demo"\nruntime = "bare"\ngpus = 0\n')
    laptop.ok("tunnel", "-d", timeout=120)
    (service,) = laptop.json("ps", "-H", "demo")["runs"]
    done = laptop.gpurun("host", "leave", "demo", "-y")
    assert done.code == 0, done.err
    assert f"{service['id']}: stopped" in done.err
    assert not (embedded_host.home / ".gpurun").exists()
    assert laptop.json("tunnel", "--list") == []


def test_history_stays_when_run_or_host_is_gone(laptop: Laptop) -> None:
    """One run is removed by `rm`, one goes with its host: both are told of as before, by no host."""
    removed, left = laptop.submit("train.py", "--", "1", "3"), laptop.submit("train.py", "--", "2", "0")
    for run in (removed, left):
        laptop.gpurun("wait", run)
    laptop.ok("fetch", removed)
    laptop.ok("rm", removed)
    laptop.ok("host", "leave", "demo", "-y")
    laptop.environment["GPURUN_SSH"] = "false"
    for run, log, state in ((removed, "step 0\ndone\n", "failed"), (left, "step 0\nstep 1\ndone\n", "succeeded")):
        shown = " ".join(laptop.ok("status", run).split())
        assert f"{run} {state}" in shown
        assert f"{run} was removed from demo on" in shown
        assert f"its files are in fetched/{run}" in shown
        assert laptop.ok("logs", run) == log
        assert run in laptop.ok("ps", "--removed")
    results = [run["result"] for run in laptop.json("compare", removed, left)["runs"]]
    assert [(one["state"], one["exit code"]) for one in results] == [("failed", 3), ("succeeded", 0)]
    done = laptop.gpurun("fetch", left)
    assert (done.code, "was removed from demo on" in " ".join(done.err.split())) == (2, True)
