"""The line for GPUs on a host that other accounts use too: what they leave in its folder, and what a reboot leaves of it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import runtimes
from gpurun.agent import vocabulary as words
from gpurun.agent.errors import AgentError, RunFailed
from gpurun.agent.host import locks
from gpurun.agent.host.gpus import Gpu
from gpurun.agent.lifecycle import supervisor
from gpurun.agent.paths import RunPaths
from gpurun.agent.queue import allocation, leases, shared_folder, tickets
from gpurun.agent.runtimes import Presence
from gpurun.agent.state import journal, origin
from tests.unit.agent import another_account
from tests.unit.agent.another_account import NAME, does, keeps
from tests.unit.agent.conftest import AgentHost
from tests.unit.agent.run_folder import RunFolder

SLEEPER = "import time; print('here', flush=True); time.sleep(60)"
SMI = """#!/bin/sh
case "$*" in
*query-gpu=driver*) echo 570.86.15;;
*query-gpu*) cat "{root}/gpus";;
*query-compute*) ;;
esac
"""


@pytest.fixture(autouse=True)
def tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is /tmp for these hosts."""
    with another_account.folder_for_all() as folder:
        monkeypatch.setenv("GPURUN_LOCKS", str(folder))
        yield folder


@pytest.fixture
def box(agent: AgentHost, tmp: Path) -> AgentHost:
    """A host with two GPUs whose /tmp is shared with other accounts."""
    (agent.root / "locks").rmdir()
    (agent.root / "locks").symlink_to(tmp)
    (agent.root / "bin/nvidia-smi").write_text(SMI.format(root=agent.root))
    (agent.root / "bin/nvidia-smi").chmod(0o755)
    has_gpus(agent, 2)
    return agent


def has_gpus(box: AgentHost, count: int) -> None:
    """From now on nvidia-smi tells of so many."""
    new = box.root / "gpus.new"
    new.write_text("".join(f"{n}, {uuid(n)}, 81559, 4, Disabled, NVIDIA H100\n" for n in range(count)))
    new.rename(box.root / "gpus")


def uuid(index: int) -> str:
    return f"GPU-{index}"


def with_gpus(box: AgentHost, count: int, script: str = SLEEPER, **changes: Any) -> RunPaths:
    asked = {"gpus": count, "memory": None, "cpus": None, "shm": None}
    return box.submit(script, resources=asked, **changes)


def until(box: AgentHost, run: RunPaths, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    for _ in range(300):
        record: dict[str, Any] = box.status(run)
        if fits(record):
            return record
        time.sleep(0.1)
    raise AssertionError((record, Path(run.supervisor_log).read_text()))


def waiting_for(text: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: text in str(record["waiting"])


def stop_works(box: AgentHost, run: RunPaths) -> None:
    box.ask("stop", runs=[run.id], force=True)
    assert box.wait(run)["state"] == words.STOPPED


def hold(path: Path, *, make: bool = False) -> None:
    """Lock a file, and keep it locked as long as this process lives."""
    fd = os.open(path, os.O_RDONLY | (os.O_CREAT if make else 0), 0o644)
    fcntl.flock(fd, fcntl.LOCK_EX)  # who held it may just be dying


def made_by_another(tmp: Path, act: Callable[[Path], object]) -> None:
    """Another account makes the queue's folders, as its gpurun does, and something in them."""
    does(tickets.look, lambda: act(tmp / "gpurun-gpus"))


# A folder that others can write


def test_lock_name_that_leads_to_a_file_of_ours_changes_nothing_in_it(box: AgentHost, tmp: Path) -> None:
    """Another account makes the folder first, and links a GPU's lock to a file of the user's."""
    mine = tmp / "authorized_keys"
    mine.write_text("ssh-ed25519 AAAA ada")
    mine.chmod(0o600)
    made_by_another(tmp, lambda folder: (folder / uuid(0)).symlink_to(mine))
    run = with_gpus(box, 1)
    assert until(box, run, lambda record: record["state"] == words.RUNNING)["gpus"][0]["index"] == 1
    waiting = with_gpus(box, 1)
    told = until(box, waiting, waiting_for("lock file"))["waiting"]
    assert f"{tmp}/gpurun-gpus/{uuid(0)}".rpartition("/")[2] in told
    assert f"of {NAME}: a link" in told
    assert mine.read_text() == "ssh-ed25519 AAAA ada"
    stop_works(box, waiting)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder", "link to nothing"])
def test_odd_file_in_the_place_of_a_gpus_lock_is_not_used(tmp: Path, kind: str) -> None:
    mine = tmp / "mine"
    mine.write_text("mine")
    with shared_folder.opened():
        pass
    place = Path(leases.lock_path("GPU-0"))
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to(mine),
        "second name": lambda: place.hardlink_to(mine),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "link to nothing": lambda: place.symlink_to(tmp / "nothing"),
    }
    make[kind]()
    assert leases.take(["GPU-0"], "train-0000", "ada") is None
    use = leases.holder("GPU-0")
    assert use is not None
    assert "lock file cannot be used" in use.by
    assert mine.read_text() == "mine"
    assert not (tmp / "nothing").exists()
    assert not list(place.parent.glob("GPU-0.*")), "the note of a lease that was not had"


def test_note_of_another_account_is_not_taken_for_ours(tmp: Path) -> None:
    """Who holds a lease is told by whose the note is, not by what stands in it."""
    held = leases.take(["GPU-0"], "train-0000", "ada")
    assert held is not None
    leases.release(held)
    lock = Path(leases.lock_path("GPU-0"))
    forged = lock.with_name(f"GPU-0.{os.getuid() + 1}.train-ffff")
    with keeps(lambda: hold(lock), lambda: forged.write_text('{"owner": "root"}'), lambda: hold(forged)):
        use = leases.holder("GPU-0")
    assert use is not None
    assert use.run is None
    assert f"of {NAME}, which holds its lock" in use.by


def test_lease_note_goes_with_the_last_process_that_holds_the_lease(tmp: Path) -> None:
    held = leases.take(["GPU-0"], "train-0000", "ada")
    assert held is not None
    child = os.fork()
    if child == 0:
        signal.pause()
    leases.release(held)
    use = leases.holder("GPU-0")
    assert use is not None
    assert use.by == "run train-0000 of ada"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert leases.holder("GPU-0") is None


def test_note_of_a_jobs_lease_outlives_its_supervisor(box: AgentHost) -> None:
    """The job's processes hold the lease then, and the next supervisor cannot take it."""
    first, second = with_gpus(box, 2), with_gpus(box, 1)
    until(box, second, waiting_for(f"run {first.id} of ada"))
    for pid in box.lock_holders(f"run-{first.id}"):
        os.kill(pid, signal.SIGKILL)
    until(box, first, lambda _: box.lock_holders(f"run-{first.id}"))
    third = with_gpus(box, 1)
    stop_works(box, second)
    until(box, third, waiting_for(f"run {first.id} of ada"))


def test_lease_whose_files_are_swept_away_is_taken_again(monkeypatch: pytest.MonkeyPatch, tmp: Path) -> None:
    monkeypatch.setattr(leases, "KEEP_EVERY", 0.01)
    held = leases.take(["GPU-0"], "train-0000", "ada") or []
    with leases.kept(["GPU-0"], "train-0000", "ada", held):
        shutil.rmtree(tmp / "gpurun-gpus")
        while leases.holder("GPU-0") is None:
            time.sleep(0.01)
    use = leases.holder("GPU-0")
    assert use is not None
    assert use.run == "train-0000"
    leases.release(held)
    assert leases.holder("GPU-0") is None


def test_lock_of_the_line_held_by_another_account_holds_up_nobody(box: AgentHost, tmp: Path) -> None:
    """A lock that older versions waited for."""
    line = tmp / "gpurun-gpus/line"
    with keeps(tickets.look, lambda: hold(line, make=True)):
        run = with_gpus(box, 1)
        box.until_running(run)


def test_ticket_locked_by_another_account_is_made_anew(box: AgentHost) -> None:
    first, second = with_gpus(box, 2), with_gpus(box, 1)
    until(box, second, waiting_for(f"run {first.id} of ada"))
    (ticket,) = tickets.in_line()
    for pid in box.lock_holders(f"run-{second.id}"):
        os.kill(pid, signal.SIGKILL)
    with keeps(lambda: hold(Path(ticket.path))):
        box.ask("ps")  # starts its supervisor again
        until(box, second, waiting_for(f"run {first.id} of ada"))
        stop_works(box, second)


def test_ticket_of_the_past_is_waited_for_by_name_and_stop_works(box: AgentHost, tmp: Path) -> None:
    name = tickets.Ticket(1, another_account.UID, "theirs-0000").name
    with keeps(tickets.look, lambda: hold(tmp / "gpurun-gpus/queue" / name, make=True)):
        run = with_gpus(box, 1)
        told = until(box, run, waiting_for("after run theirs-0000"))["waiting"]
        assert os.getuid() == another_account.UID or f"theirs-0000 of {NAME}" in told
        assert "theirs-0000" in box.ask("ps")["queue"]
        stop_works(box, run)


def test_ticket_in_the_name_of_another_account_counts_for_nothing(tmp: Path) -> None:
    name = tickets.Ticket(1, another_account.UID + 1, "theirs-0000").name
    with keeps(tickets.look, lambda: hold(tmp / "gpurun-gpus/queue" / name, make=True)):
        line = tickets.look()
    assert line.tickets == ()
    assert len(line.odd) == 1


def test_ticket_of_one_that_gives_no_sign_is_not_waited_for(tmp: Path) -> None:
    """A supervisor that hangs in the kernel, or is stopped, keeps its lock."""
    first, second = tickets.draw("train-0000"), tickets.draw("train-0001")
    held = tickets.stand_in_line(first)
    assert tickets.ahead_of(second) == first
    long_ago = time.time() - tickets.SILENCE - 1
    os.utime(first.path, (long_ago, long_ago))
    assert tickets.ahead_of(second) is None
    tickets.leave(first, held)


def test_ticket_that_is_far_ahead_does_not_move_the_numbers(tmp: Path) -> None:
    name = tickets.Ticket(10**18 - 1, another_account.UID, "theirs-0000").name
    made_by_another(tmp, lambda folder: (folder / "queue" / name).write_text(""))
    assert tickets.draw("train-0000").number < 10**17


def test_ticket_that_a_wrong_clock_gave_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time_ns", lambda: real() + 30 * 86_400 * 10**9)
        early = tickets.draw("train-0000")
    assert tickets.of(early.run, early.number) < tickets.draw("train-0001")
    soon = tickets.draw("train-0002")
    assert tickets.of(soon.run, soon.number) == soon


ODD: dict[str, Callable[[Path], object]] = {
    "no digits for us": lambda queue: (queue / "²-1-train-0000").write_text(""),
    "closed": lambda queue: (queue / tickets.Ticket(1, another_account.UID, "theirs-0000").name).touch(0o000),
    "pipe": lambda queue: os.mkfifo(queue / tickets.Ticket(1, another_account.UID, "theirs-0000").name),
    "folder": lambda queue: (queue / tickets.Ticket(1, another_account.UID, "theirs-0000").name).mkdir(),
    "link": lambda queue: (queue / tickets.Ticket(1, another_account.UID, "theirs-0000").name).symlink_to(
        "/etc/passwd"
    ),
    "escape sequences": lambda queue: (queue / "1-1-\x1b]0;title\x07").write_text(""),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_file_in_the_queue_is_left_aside_and_told_once(box: AgentHost, tmp: Path, kind: str) -> None:
    made_by_another(tmp, lambda folder: ODD[kind](folder / "queue"))
    run = with_gpus(box, 1)
    assert set(box.ask("ps")["queue"]) <= {run.id}  # it may stand in line still
    record = box.until_running(run)
    told = [note for note in record["notes"] if note.startswith("left aside in the queue: ")]
    if kind != "closed" or os.getuid() != 0:  # root can read it, and sees that nobody holds it
        assert len(told) == 1
        assert f" of {NAME}: " in told[0]
        assert told[0].isascii()
        assert told[0].isprintable()


def test_closed_file_in_the_queue_is_left_aside_by_other_accounts(tmp: Path) -> None:
    with shared_folder.opened("queue"):
        pass
    Path(tickets.Ticket(1, os.getuid(), "train-0000").path).touch(0o000)

    def act() -> None:
        line = tickets.look()
        assert line.tickets == ()
        assert len(line.odd) == 1, line

    does(act)


def test_folder_of_ours_that_is_not_for_all_becomes_so(tmp: Path) -> None:
    """What a process of an older version left that was killed between two steps."""
    (tmp / "gpurun-gpus").mkdir(0o755)
    ticket = tickets.draw("train-0000")
    tickets.leave(ticket, tickets.stand_in_line(ticket))
    does(tickets.look)


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o777])
def test_folder_of_another_account_that_is_not_for_all_is_told(box: AgentHost, tmp: Path, mode: int) -> None:
    folder = tmp / "gpurun-gpus"
    if os.getuid() == another_account.UID:
        folder.write_text("")  # we would mend a folder of ours
        told = f"of {NAME}: "
    else:
        does(folder.mkdir, lambda: folder.chmod(mode))
        told = f"of {NAME}: its mode is {mode:04o}"
    run = with_gpus(box, 1)
    waiting = until(box, run, waiting_for("folder of the GPU queue"))["waiting"]
    assert told in waiting
    assert box.ask("ps", gpus=True)["runs"][0]["id"] == run.id
    if os.getuid() != another_account.UID:
        does(lambda: folder.chmod(0o1777))
        box.until_running(run)
    stop_works(box, run)


def test_folder_that_is_a_link_is_not_followed(tmp: Path) -> None:
    (tmp / "elsewhere").mkdir()
    does(lambda: (tmp / "gpurun-gpus").symlink_to(tmp / "elsewhere"))
    with pytest.raises(AgentError, match="a link"):
        tickets.look()
    assert tickets.draw("train-0000").number > 0, "a submit does not fail by it"
    assert list((tmp / "elsewhere").iterdir()) == []


def test_ticket_that_was_swept_away_is_made_anew(box: AgentHost) -> None:
    first, second = with_gpus(box, 2), with_gpus(box, 1)
    until(box, second, waiting_for(f"run {first.id} of ada"))
    (ticket,) = tickets.in_line()
    os.unlink(ticket.path)
    for _ in range(100):
        if tickets.in_line() == [ticket]:
            return
        time.sleep(0.1)
    raise AssertionError("nobody stands in line")


# The order


def test_runs_that_race_for_one_gpu_never_have_it_together(box: AgentHost) -> None:
    has_gpus(box, 1)
    script = "import time; print(time.monotonic(), flush=True); time.sleep(0.3); print(time.monotonic(), flush=True)"
    runs = [with_gpus(box, 1, script) for _ in range(5)]
    assert [box.wait(run)["state"] for run in runs] == [words.SUCCEEDED] * 5
    spans = sorted(tuple(map(float, Path(run.log).read_text().split())) for run in runs)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans)), spans
    assert tickets.in_line() == []
    assert leases.holder(uuid(0)) is None


def test_order_survives_a_reboot(box: AgentHost, tmp: Path) -> None:
    holder = with_gpus(box, 1)
    box.until_running(holder)
    first = with_gpus(box, 2)
    until(box, first, waiting_for(holder.id))
    second = with_gpus(box, 1)
    until(box, second, waiting_for(f"after run {first.id}"))
    box.end_all()
    for path in (tmp / "gpurun-gpus").rglob("*"):
        if path.is_file():
            path.unlink()
    box.boot_id.write_text(secrets.token_hex(16))
    until(box, second, waiting_for(f"after run {first.id}, which comes back"))  # its supervisor is the first to stand
    third = with_gpus(box, 1)
    box.ask("ps")
    box.until_running(first)
    assert box.status(second)["state"] == words.QUEUED
    until(box, third, waiting_for(f"after run {second.id}"))
    stop_works(box, first)
    box.until_running(second)


@pytest.mark.parametrize("doubt", [None, "train-0000 is a copy"])
def test_run_that_does_not_come_back_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, doubt: str | None
) -> None:
    run, other = (RunFolder(tmp_path, run_id) for run_id in ("train-0001", "train-0000"))
    for folder, number in ((other, 1), (run, 2)):
        Path(folder.paths.events).unlink()
        journal.record(folder.paths, words.QUEUED, ticket=number)
        journal.record(folder.paths, "prepared", record={"image": None})
    job = json.loads(Path(run.paths.job).read_text())
    job = {**job, "owner": "ada", "resources": {"gpus": 1}, "host": {"engine": None}}
    monkeypatch.setattr(origin, "doubt", lambda _: doubt)
    monkeypatch.setattr(allocation, "look", lambda _: ([Gpu(0, "GPU-0", "H100", 80 << 30, 0)], {}))
    ticket = tickets.Ticket(2, os.getuid(), run.paths.id)
    waiting = allocation._Waiting(run.paths)
    if doubt is None:
        taken, why = allocation._try_to_take(run.paths, job, ticket, waiting, returning=True)
        assert taken is None
        assert "after run train-0000, which comes back" in why.text
    taken, _ = allocation._try_to_take(run.paths, job, ticket, waiting, returning=doubt is not None)
    assert taken is not None
    leases.release(taken[1])


@pytest.mark.parametrize("lives", [True, False], ids=["its supervisor lives", "nobody looks after it"])
def test_run_that_has_stepped_aside_is_waited_for_only_when_it_may_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lives: bool
) -> None:
    run, other = (RunFolder(tmp_path, f"train-{secrets.token_hex(2)}") for _ in range(2))
    Path(other.paths.events).unlink()
    journal.record(other.paths, words.QUEUED, ticket=1)
    journal.record(other.paths, "prepared", record={"image": None})
    monkeypatch.setattr(origin, "doubt", lambda _: None)
    ticket = tickets.Ticket(2, os.getuid(), run.paths.id)
    held = locks.acquire(locks.run_lock(other.paths.id)) if lives else None
    assert allocation._who_returns(run.paths, ticket) == other.paths.id
    aside = allocation._Waiting(other.paths, aside=True)
    aside.tell(allocation.Why("2 GPU(s): the host has 1 now"))
    assert allocation._who_returns(run.paths, ticket) == (None if lives else other.paths.id)
    aside.aside = False
    aside.tell(allocation.Why("2 GPU(s): the host has 1 now"))
    assert allocation._who_returns(run.paths, ticket) == other.paths.id
    if held is not None:
        held.release()


# Patience


def test_fewer_gpus_than_before_are_waited_for_and_told(box: AgentHost) -> None:
    holder = with_gpus(box, 2)
    box.until_running(holder)
    runs = [with_gpus(box, 1), with_gpus(box, 2)]
    until(box, runs[0], waiting_for(holder.id))
    has_gpus(box, 0)
    until(box, runs[0], waiting_for("the host has 0 now, fewer than when the job was submitted"))
    has_gpus(box, 1)
    stop_works(box, holder)
    box.until_running(runs[0])
    until(box, runs[1], waiting_for("the host has 1 now"))
    stop_works(box, runs[0])
    has_gpus(box, 2)
    box.until_running(runs[1])


def test_nvidia_smi_that_is_replaced_is_waited_for(box: AgentHost) -> None:
    holder = with_gpus(box, 2)
    box.until_running(holder)
    run = with_gpus(box, 1)
    until(box, run, waiting_for(holder.id))
    smi = box.root / "bin/nvidia-smi"
    smi.rename(box.root / "away")
    until(box, run, waiting_for("the host has 0 now"))
    (box.root / "away").rename(smi)
    stop_works(box, holder)
    box.until_running(run)


def test_run_steps_aside_when_the_host_has_too_few_gpus_for_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    Path(run.paths.events).unlink()
    journal.record(run.paths, words.QUEUED, ticket=1)
    job = {"owner": "ada", "resources": {"gpus": 2}, "host": {"engine": None}}
    found = [Gpu(0, "GPU-0", "H100", 80 << 30, 0)]
    monkeypatch.setattr(allocation, "look", lambda _: (list(found), {}))
    monkeypatch.setattr(allocation, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(allocation, "ASIDE_AFTER", 0.0)
    stood: list[bool] = []

    def check() -> None:
        stood.append(bool(tickets.in_line()))
        if len(stood) == 4:
            found.append(Gpu(1, "GPU-1", "H100", 80 << 30, 0))

    taken, held = allocation.wait_for_gpus(run.paths, job, check)
    leases.release(held)
    assert [gpu.index for gpu in taken] == [0, 1]
    assert stood == [False, True, False, False]
    told = [event.get("aside") for event in journal.read(run.paths) if "waiting" in event]
    assert told[-1] is True


class NeverStarts:
    """A runtime whose host cannot start the job."""

    def presence(self, run: RunPaths, job: Any) -> Presence:
        return Presence("absent")

    def prepare(self, run: RunPaths, job: Any, say: Any) -> dict[str, Any]:
        return {"image": None}

    def create_and_start(self, run: RunPaths, *_: object) -> None:
        use = leases.holder("GPU-0")
        assert use is not None
        assert use.run == run.id
        raise RunFailed("start", "no process left")

    def remove(self, run: RunPaths, job: Any) -> None:
        assert leases.holder("GPU-0") is not None, "given back while the job may still be there"


def test_leases_are_given_back_when_the_start_fails_behind_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the supervisor's next attempt waits for GPUs that it holds itself."""
    folder = RunFolder(tmp_path, owner="ada", project={"name": "vision"}, resources={"gpus": 1}, host={"engine": None})
    run = folder.paths
    Path(run.events).unlink()
    journal.record(run, words.QUEUED, ticket=1)
    monkeypatch.setattr(runtimes, "load", lambda *_: NeverStarts())
    monkeypatch.setattr(allocation, "look", lambda _: ([Gpu(0, "GPU-0", "H100", 80 << 30, 0)], {}))
    supervisor._attempt(run)
    assert journal.fold(run).reason == "start"
    held = leases.take(["GPU-0"], "train-0001", "bob")
    assert held is not None
    leases.release(held)


def test_submit_whose_supervisor_cannot_stand_is_failed(box: AgentHost) -> None:
    run = box.prepare(SLEEPER)
    Path(run.supervisor_log).mkdir()  # any reason for which it cannot be opened: no inode left, a quota
    record = box.start(run)["run"]
    assert (record["state"], record["reason"]) == (words.FAILED, "start")
    assert "IsADirectoryError" in record["message"]
    Path(run.supervisor_log).rmdir()
    assert box.resume(run)["live"]
    box.until_running(run)


def test_launch_returns_whether_a_supervisor_stands(box: AgentHost, monkeypatch: pytest.MonkeyPatch) -> None:
    run = box.submit(SLEEPER)
    box.until_running(run)
    assert supervisor.launch(run), "another one holds the lock"

    def no_process() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_process)
    assert not supervisor.launch(run)


# What the journal says of a wait


def test_amounts_that_change_write_no_events(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).paths
    waiting = allocation._Waiting(run)
    before = len(journal.read(run))
    found = [Gpu(0, "GPU-0", "H100", 80 << 30, 0)]
    for used in range(50):
        uses = leases.uses(found, [("GPU-0", 42, "python", used << 20)], {}, {42: "bob"})
        text, key = leases.why_waiting(found, 1, uses), leases.blockers(found, uses)
        assert f"{used} MiB" in text
        waiting.tell(allocation.Why(text, key))
    assert len(journal.read(run)) == before + 1


def test_waits_that_change_all_the_time_write_few_events(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).paths
    waiting = allocation._Waiting(run)
    before = len(journal.read(run))
    for number in range(50):
        waiting.tell(allocation.Why(f"after run train-{number:04}"))
    assert len(journal.read(run)) == before + allocation.TOLD_AT_ONCE
    waiting.filled -= allocation.TOLD_AGAIN
    waiting.tell(allocation.Why("the last"))
    assert journal.fold(run).waiting == "the last"
