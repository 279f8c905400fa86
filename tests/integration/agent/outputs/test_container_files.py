"""Files that a script left in its container, over an engine that answers from a folder."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import error_codes, files, machine, runtimes
from gpurun.agent import vocabulary as words
from gpurun.agent.errors import AgentError
from gpurun.agent.host import locks
from gpurun.agent.lifecycle import attempts, finish, supervisor
from gpurun.agent.outputs import container_files
from gpurun.agent.outputs.container_files import collect, forget
from gpurun.agent.paths import RunPaths
from gpurun.agent.setup.wrapper import token_label
from gpurun.agent.state import completeness, jobs, journal
from gpurun.agent.verbs import fetched, outputs, rm, unfetched
from tests.support.part import only
from tests.support.run_folder import LONG_AGO, RUN, RunFolder

TOKEN = "t0"

# A container is a folder `root` of files, a file `diff` and a file `labels`; without that folder there is none.
ENGINE = """
import os, sys, tarfile
here = os.path.dirname(os.path.abspath(__file__))
verb, last = sys.argv[1], sys.argv[-1]
root = os.path.join(here, "root")
if os.path.exists(os.path.join(here, "down")):
    sys.exit("Cannot connect to the Docker daemon")
if verb == "container":
    if not os.path.isdir(root):
        sys.exit("Error: No such container: " + last)
    running = str(os.path.exists(os.path.join(here, "running"))).lower()
    labels, mounts = (open(os.path.join(here, name)).read() for name in ("labels", "mounts"))
    status = "running" if running == "true" else "exited"
    told = '{"Id": "c0ffee", "State": {"Running": %s, "Status": "%s"}, "Config": {"Labels": %s}, "Mounts": %s}'
    print(told % (running, status, labels, mounts))
elif verb == "ps":
    print("c0ffee" if "--all" in sys.argv else "")
elif verb == "rm":
    os.rename(root, root + ".gone")
elif verb == "diff":
    sys.stdout.buffer.write(open(os.path.join(here, "diff"), "rb").read())
elif verb == "cp":
    source = os.fsencode(sys.argv[2]).split(b":", 1)[1]
    full = os.fsencode(root) + source
    if not os.path.lexists(full):
        sys.exit("Error: no such file")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        archive.add(os.fsdecode(full), arcname=os.fsdecode(os.path.basename(source)))
"""


class Container:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "root").mkdir(parents=True)
        (folder / "engine.py").write_text(ENGINE)
        self.argv = [sys.executable, str(folder / "engine.py")]
        (folder / "mounts").write_text("[]")
        self.diff = b""
        self.labelled()

    def labelled(self, token: str = TOKEN, attempt: int = 1) -> None:
        labels = {"gpurun.run": RUN, "gpurun.token": token_label(only(token=token)), "gpurun.attempt": str(attempt)}
        (self.folder / "labels").write_text(json.dumps(labels))

    @property
    def is_there(self) -> bool:
        return (self.folder / "root").is_dir()

    def wrote(self, path: bytes, content: bytes = b"x", *, kind: str = "A", at: float = LONG_AGO) -> None:
        full = os.fsencode(self.folder / "root") + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        Path(os.fsdecode(full)).write_bytes(content)
        os.utime(full, (at, at))
        self.told(kind, path)

    def told(self, kind: str, path: bytes) -> None:
        self.diff += kind.encode() + b" " + path + b"\n"
        (self.folder / "diff").write_bytes(self.diff)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path / "locks"))
    return Container(tmp_path / "engine")


@pytest.fixture
def run(tmp_path: Path, container: Container) -> RunFolder:
    host = {"runtime": "docker", "engine": container.argv, "machine_id": machine.machine_id()}
    return RunFolder(tmp_path / "host", token=TOKEN, host=host, mounts=[{"target": "/data/imagenet"}])


def gather(run: RunFolder, *, live: bool = False) -> tuple[dict[bytes, bytes], dict[str, str]]:
    """What lies below `outside/` afterwards, and what was skipped why."""
    job = jobs.of_attempt_or_empty(run.paths)
    skipped = collect(run.paths, job, live)
    top = os.fsencode(run.paths.outside)
    files = {
        os.path.relpath(os.path.join(folder, name), top): Path(os.fsdecode(os.path.join(folder, name))).read_bytes()
        for folder, _, names in os.walk(top)
        for name in names
    }
    return files, {entry["path"]: entry["why"] for entry in skipped}


def test_added_folders_and_changed_files_come_with_any_name(run: RunFolder, container: Container) -> None:
    container.told("C", b"/root")
    container.told("A", b"/root/results")
    container.wrote(b"/root/results/deep/a b\n\xff.csv", b"1,2")
    container.wrote(b"/etc/settings", b"lr=1", kind="C")
    assert gather(run) == ({b"root/results/deep/a b\n\xff.csv": b"1,2", b"etc/settings": b"lr=1"}, {})
    assert gather(run) == gather(run)


def test_what_gpurun_mounted_itself_was_not_written_outside(run: RunFolder, container: Container) -> None:
    """A container made by an older gpurun sees all runs; `docker cp` of a folder above brings what is mounted below it."""
    runs = run.host.runs
    (container.folder / "mounts").write_text(json.dumps([{"Type": "bind", "Source": runs, "Destination": runs}]))
    above = os.fsencode(os.path.dirname(runs))
    container.told("A", above)
    container.told("A", os.fsencode(runs))
    container.wrote(os.fsencode(runs) + b"/other-2222/ro/env", b"export TOKEN=hunter2")
    container.wrote(above + b"/mine", b"1")
    assert gather(run) == ({above[1:] + b"/mine": b"1"}, {})


def test_an_old_folder_whose_mode_was_changed_is_not_copied(run: RunFolder, container: Container) -> None:
    container.wrote(b"/opt/big/old", b"from the image")
    container.diff = b""
    container.told("C", b"/opt/big")
    assert gather(run) == ({}, {})


def test_links_and_devices_of_the_job_are_left(run: RunFolder, container: Container) -> None:
    container.told("A", b"/root/results")
    container.wrote(b"/root/results/real", b"1")
    results = container.folder / "root" / "root" / "results"
    (results / "link").symlink_to("/etc/shadow")
    os.mkfifo(results / "pipe")
    (results / "twin").hardlink_to(results / "real")
    files, _ = gather(run)
    assert files == {b"root/results/real": b"1", b"root/results/twin": b"1"}


def test_a_file_that_went_meanwhile_is_told_and_the_rest_comes(run: RunFolder, container: Container) -> None:
    container.told("A", b"/root/gone")
    container.wrote(b"/srv/kept", b"1")
    files, skipped = gather(run)
    assert files == {b"srv/kept": b"1"}
    assert skipped == {"outside/root/gone": "Error: no such file"}


def test_what_an_earlier_attempt_alone_has_is_waited_for_before_its_container_goes(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.wrote(b"/results/best.ckpt", b"weights")
    os.rename(container.folder / "root/results", container.folder / "aside")  # docker cp fails
    job: Any = {**json.loads(Path(run.paths.job).read_text()), "attempt": 2, "user": None}
    monkeypatch.setattr(supervisor, "PAUSE", 0.05)

    def mend() -> str | None:
        while (why := journal.fold(run.paths).waiting) is None:
            time.sleep(0.01)
        os.rename(container.folder / "aside", container.folder / "root/results")
        return why

    with ThreadPoolExecutor() as pool:
        told = pool.submit(mend)
        supervisor._remove_earlier_container(run.paths, job, runtimes.load("docker", container.argv))
    why = "outside/results/best.ckpt: Error: no such file"
    assert told.result() == f"gpurun could not copy a file of an earlier attempt out of its container: {why}"
    assert not container.is_there
    assert Path(run.paths.outside, "results/best.ckpt").read_bytes() == b"weights"


def test_a_run_that_ends_before_its_next_attempt_keeps_the_container_that_could_not_be_copied(
    run: RunFolder, container: Container
) -> None:
    container.told("A", b"/results/best.ckpt")
    job: Any = {**json.loads(Path(run.paths.job).read_text()), "attempt": 2, "user": None}
    with pytest.raises(AgentError, match=r"out of its container: outside/results/best\.ckpt") as error:
        attempts.gather_earlier(run.paths, job)
    assert f"docker rm gpurun-{RUN}" in error.value.next_step
    supervisor._remove_container(run.paths, job, runtimes.load("docker", container.argv))
    assert container.is_there


def test_while_the_job_runs_young_files_wait(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completeness, "QUIET_SECONDS", 3600.0)
    container.wrote(b"/srv/young", at=time.time())
    assert gather(run, live=True) == ({}, {"outside/srv/young": "it was written a moment ago"})
    assert gather(run)[0] == {b"srv/young": b"x"}


def test_an_engine_that_is_down_or_a_container_that_is_gone_is_told(run: RunFolder, container: Container) -> None:
    (container.folder / "down").touch()
    assert "Cannot connect" in gather(run)[1]["outside/"]
    (container.folder / "down").unlink()
    (container.folder / "root").rename(container.folder / "removed")
    assert "the container is gone" in gather(run)[1]["outside/"]


@pytest.mark.parametrize("made_for", [{"token": "another"}, {"attempt": 2}], ids=["another's run", "a later attempt"])
def test_a_container_that_is_not_of_this_run_is_left_alone(
    run: RunFolder, container: Container, made_for: dict[str, Any]
) -> None:
    """Two accounts of one engine know one container name, and a run may have gone on in the other account."""
    container.wrote(b"/srv/theirs")
    container.labelled(**made_for)
    files, skipped = gather(run)
    assert (files, "the container is gone" in skipped["outside/"]) == ({}, True)
    forget(run.paths, jobs.of_attempt_or_empty(run.paths))
    assert container.is_there
    container.labelled()
    forget(run.paths, jobs.of_attempt_or_empty(run.paths))
    assert not container.is_there


def test_without_an_engine_there_is_nothing_outside(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "bare")
    assert collect(run.paths, only(id=RUN, host={"runtime": "bare", "engine": None}), False) == []


def at_end(run: RunFolder) -> None:
    """What the supervisor does once the run has ended."""
    held = locks.acquire(locks.run_lock(RUN))
    assert held is not None
    container_files.gather_at_end(run.paths, held)
    held.release()


def listed(run: RunFolder, **more: Any) -> Any:
    return outputs.answer(only(run=RUN, **more), run.host)


def test_container_of_an_ended_run_is_gathered_at_the_end_and_flushed_before_it_goes(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's `docker container prune` behind the end takes nothing that is nowhere else."""
    container.wrote(b"/results/best.ckpt", b"weights")
    flushed: list[bool] = []

    def flush(folder: str) -> None:
        flushed.append(container.is_there)
        files.sync_disk(folder)

    monkeypatch.setattr(container_files, "sync_disk", flush)
    run.end()
    at_end(run)
    assert flushed == [True]
    assert not container.is_there
    answer = listed(run)
    assert answer["container"] is False, "the first fetch has no need to ask the engine"
    assert "outside/results/best.ckpt" in [file["as"] for file in answer["files"]]
    assert answer["stamp"] == unfetched.answer({"runs": [RUN]}, run.host)["held"][RUN]["stamp"] is not None


def test_fetch_that_waits_for_the_gathering_at_the_end_says_nothing_of_a_lost_container(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.wrote(b"/results/best.ckpt", b"weights")
    run.end()
    hold = container_files.hold

    def hold_behind_the_supervisor(of: RunPaths) -> locks.Held:
        at_end(run)
        return hold(of)

    monkeypatch.setattr(container_files, "hold", hold_behind_the_supervisor)
    answer = listed(run, outside=True)
    assert answer["skipped"] == []
    assert [file["as"] for file in answer["files"]] == ["outside/results/best.ckpt"]


def test_container_that_could_not_be_copied_at_the_end_is_kept_and_fetched_later(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.wrote(b"/results/best.ckpt", b"weights")
    run.end()
    with monkeypatch.context() as patch:
        patch.setattr(container_files, "_LITTLE", 1 << 60)
        at_end(run)
    assert container.is_there
    told = unfetched.answer({"runs": [RUN]}, run.host)["held"][RUN]
    assert (told["container"], told["stamp"]) == (True, None)
    assert listed(run)["container"] is True
    later = listed(run, outside=True)
    assert [file["as"] for file in later["files"]] == ["outside/results/best.ckpt"]
    whole = listed(run)["stamp"]
    assert whole.endswith("." + later["stamp"])
    fetched.answer({"run": RUN, "what": "all", "attempt": 1, "stamp": whole}, run.host)
    assert not container.is_there
    assert unfetched.answer({"runs": [RUN]}, run.host)["held"][RUN]["elsewhere"] is not None


def test_container_of_an_earlier_attempt_is_kept_until_it_is_copied_though_the_last_one_never_started(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.wrote(b"/scratch/model.ckpt", b"30 hours of training")
    run.end()
    journal.record(run.paths, "attempt", number=2, why="resume", checkpoint=None, ticket=None, gpus=None)
    os.unlink(run.paths.exit)
    job = jobs.of_attempt_or_empty(run.paths)
    with monkeypatch.context() as patch:
        patch.setattr(container_files, "_LITTLE", 1 << 60)
        supervisor._remove_container(run.paths, {**job, "user": None}, runtimes.load("docker", container.argv))
    finish.end(run.paths, words.STOPPED, "stop", message="stopped before the job was started")
    assert container.is_there
    assert listed(run)["container"] is True
    fetched.answer({"run": RUN, "what": "all", "attempt": 2, "stamp": None}, run.host)
    assert container.is_there, "nobody has asked for what it holds"
    listed(run, outside=True)
    fetched.answer({"run": RUN, "what": "all", "attempt": 2, "stamp": None}, run.host)
    assert not container.is_there
    assert Path(run.paths.outside, "scratch/model.ckpt").read_bytes() == b"30 hours of training"


def test_container_that_still_runs_behind_the_end_of_its_run_is_left_alone(
    run: RunFolder, container: Container
) -> None:
    container.wrote(b"/results/best.ckpt", b"weights")
    (container.folder / "running").touch()
    run.end()
    at_end(run)
    assert container.is_there
    assert listed(run)["container"] is True
    (skipped,) = listed(run, outside=True)["skipped"]
    assert (skipped["lost"], "still runs" in skipped["why"]) == (True, True)


def test_what_was_lost_before_the_end_is_told_by_each_fetch(run: RunFolder, container: Container) -> None:
    (container.folder / "root").rename(container.folder / "removed")
    run.end()
    at_end(run)
    assert [one["why"] for one in listed(run)["skipped"]] == [
        "the container is gone, and with it what was written outside the workspace"
    ]


def test_rm_that_was_agreed_before_the_container_was_gathered_goes_on(run: RunFolder, container: Container) -> None:
    container.wrote(b"/results/best.ckpt", b"weights")
    run.end()
    seen = unfetched.answer({"runs": [RUN]}, run.host)["held"][RUN]["stamp"]
    assert seen is None
    at_end(run)
    assert rm.answer({"runs": [RUN], "stamps": {RUN: seen}}, run.host)["removed"] == [RUN]


def test_rm_while_a_container_is_copied_waits_and_is_refused(
    run: RunFolder, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.end()
    monkeypatch.setattr(container_files, "_PATIENCE", 0.0)
    held = locks.acquire(locks.gather_lock(RUN))
    assert held is not None
    with pytest.raises(AgentError) as error:
        rm.answer({"runs": [RUN]}, run.host)
    assert error.value.code == error_codes.GATHERING
    held.release()
    rm.answer({"runs": [RUN]}, run.host)
