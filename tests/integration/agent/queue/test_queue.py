"""The line for GPUs on a host that other accounts use too: what they leave in its folder, and what a reboot leaves of it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.errors import AgentError
from gpurun.agent.lifecycle import supervisor
from gpurun.agent.paths import RunPaths
from gpurun.agent.queue import leases, shared_folder, tickets
from tests.support import another_account
from tests.support.agent_host import AgentHost
from tests.support.another_account import NAME, does, keeps
from tests.support.waiting import eventually
from tests.unit.agent.queue.test_queue import tmp

__all__ = ["tmp"]

SLEEPER = "import time; print('here', flush=True); time.sleep(600)"

SMI = """#!/bin/sh
case "$*" in
*query-gpu=driver*) echo 570.86.15;;
*query-gpu*) cat "{root}/gpus";;
*query-compute*) ;;
esac
"""


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
    does(tickets.read_line, lambda: act(tmp / "gpurun-gpus"))


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


def test_lock_of_the_line_held_by_another_account_holds_up_nobody(box: AgentHost, tmp: Path) -> None:
    """A lock that older versions waited for."""
    line = tmp / "gpurun-gpus/line"
    with keeps(tickets.read_line, lambda: hold(line, make=True)):
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
    with keeps(tickets.read_line, lambda: hold(tmp / "gpurun-gpus/queue" / name, make=True)):
        run = with_gpus(box, 1)
        told = until(box, run, waiting_for("after run theirs-0000"))["waiting"]
        assert os.getuid() == another_account.UID or f"theirs-0000 of {NAME}" in told
        assert "theirs-0000" in box.ask("ps")["queue"]
        stop_works(box, run)


def test_ticket_in_the_name_of_another_account_counts_for_nothing(tmp: Path) -> None:
    name = tickets.Ticket(1, another_account.UID + 1, "theirs-0000").name
    with keeps(tickets.read_line, lambda: hold(tmp / "gpurun-gpus/queue" / name, make=True)):
        line = tickets.read_line()
    assert line.tickets == ()
    assert len(line.odd) == 1


def test_ticket_that_is_far_ahead_does_not_move_the_numbers(tmp: Path) -> None:
    name = tickets.Ticket(10**18 - 1, another_account.UID, "theirs-0000").name
    made_by_another(tmp, lambda folder: (folder / "queue" / name).write_text(""))
    assert tickets.draw("train-0000").number < 10**17


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
    told = [note for note in record["notes"] if note.startswith("ignored in the queue: ")]
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
        line = tickets.read_line()
        assert line.tickets == ()
        assert len(line.odd) == 1, line

    does(act)


def test_folder_of_ours_that_is_not_for_all_becomes_so(tmp: Path) -> None:
    """What a process of an older version left that was killed between two steps."""
    (tmp / "gpurun-gpus").mkdir(0o755)
    ticket = tickets.draw("train-0000")
    tickets.leave(ticket, tickets.stand_in_line(ticket))
    does(tickets.read_line)


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
        tickets.read_line()
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
    until(box, second, waiting_for(f"after run {first.id}, which returns"))  # its supervisor is the first to stand
    third = with_gpus(box, 1)
    box.ask("ps")
    box.until_running(first)
    assert box.status(second)["state"] == words.QUEUED
    until(box, third, waiting_for(f"after run {second.id}"))
    stop_works(box, first)
    box.until_running(second)


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


def test_lease_whose_files_are_swept_away_is_taken_again(monkeypatch: pytest.MonkeyPatch, tmp: Path) -> None:
    monkeypatch.setattr(leases, "KEEP_EVERY", 0.01)
    held = leases.take(["GPU-0"], "train-0000", "ada") or []
    with leases.kept(["GPU-0"], "train-0000", "ada", held):
        shutil.rmtree(tmp / "gpurun-gpus")
        eventually(lambda: leases.holder("GPU-0") is not None)
    use = leases.holder("GPU-0")
    assert use is not None
    assert use.run == "train-0000"
    leases.release(held)
    assert leases.holder("GPU-0") is None
