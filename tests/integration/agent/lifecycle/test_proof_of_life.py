"""Who is alive when the usual proof is gone: lock files that were swept away, keepers that were killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpurun.agent import machine
from gpurun.agent import vocabulary as words
from gpurun.agent.host import locks
from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.runtimes import bare, keeper
from tests.support.agent_host import AgentHost
from tests.support.part import only
from tests.support.waiting import eventually
from tests.unit.agent.lifecycle.test_proof_of_life import lock, roots

__all__ = ["lock", "roots"]

# Goes on until the file `end` is there, and notes each time that it is started.
WAITS = (
    "import os, sys, time\n"
    "open('starts', 'a').write(os.environ['GPURUN_ATTEMPT'] + '\\n')\n"
    "print('here', flush=True)\n"
    "while not os.path.exists('end'): time.sleep(0.02)\n"
    "print('done', flush=True)\n"
    "sys.exit(4)\n"
)


def sweep(agent: AgentHost) -> None:
    """As `rm -rf /tmp/*` does, or what a process in another mount namespace sees."""
    shutil.rmtree(agent.root / "locks" / f"gpurun-{os.getuid()}")


def let_end(run: RunPaths) -> None:
    Path(run.workspace, "end").touch()


def starts(run: RunPaths) -> list[str]:
    return Path(run.workspace, "starts").read_text().split()


def keepers(run: RunPaths) -> tuple[int, int]:
    """The upper keeper, and the lower one that it is the parent of."""
    lower = json.loads(Path(run.keeper).read_text())["keeper"]
    (upper,) = keeper.carriers(run.id, machine.root_mark(run.host), bare.KEEPER_MARK) - {lower}
    return upper, lower


def supervisors(agent: AgentHost, run: RunPaths) -> list[int]:
    """Those whose lock file was removed, too."""
    held = f"{agent.root}/locks/gpurun-{os.getuid()}/run-{run.id}"
    return [*agent.processes(holding=held), *agent.processes(holding=held + " (deleted)")]


def main_process(run: RunPaths) -> int:
    return int(json.loads(Path(run.keeper).read_text())["pid"])


def test_ps_after_lock_files_were_swept_leaves_live_run_alone(agent: AgentHost) -> None:
    run = agent.submit(WAITS, retries=1)
    agent.until_running(run, b"here")
    sweep(agent)
    for _ in range(2):
        agent.ask("ps")
    assert len(supervisors(agent, run)) == 1
    let_end(run)
    eventually(lambda: agent.status(run)["attempt"] == 2)  # by its exit code, once it had ended
    record = agent.wait(run)
    assert [(one["state"], one["exit_code"]) for one in record["attempts"]] == [(words.FAILED, 4)]
    assert starts(run) == ["1", "2"]


def test_supervisor_killed_after_lock_files_were_swept_is_replaced_and_job_goes_on(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    sweep(agent)
    (supervisor,) = supervisors(agent, run)
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: supervisor not in supervisors(agent, run))
    agent.ask("ps")
    assert len(supervisors(agent, run)) == 1
    let_end(run)
    assert agent.wait(run)["exit_code"] == 4
    assert starts(run) == ["1"]


def test_way_to_temporary_files_that_was_swept_is_made_anew(agent: AgentHost) -> None:
    """The job's TMPDIR leads through the folder of locks where the path of its own is too long for sockets."""
    run = agent.submit(WAITS.replace("print('here'", "open('tmpdir', 'w').write(os.environ['TMPDIR'])\nprint('here'"))
    agent.until_running(run, b"here")
    way = Path(run.workspace, "tmpdir").read_text()
    assert way.startswith(str(agent.root / "locks"))
    sweep(agent)
    eventually(lambda: os.path.isdir(way), 60)
    assert len(supervisors(agent, run)) == 1


def test_stop_after_lock_files_were_swept_ends_the_job(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    pid = main_process(run)
    sweep(agent)
    agent.ask("stop", runs=[run.id], grace=0, force=True)
    assert agent.wait(run)["state"] == words.STOPPED
    assert keeper.start_ticks(pid) is None


@pytest.mark.parametrize(
    "where",
    [
        "def main() -> int:\n",
        "def run_lower(order: KeeperOrder, control: int, answer_pipe: int, begins: int) -> None:\n",
    ],
)
def test_keeper_killed_before_the_job_has_begun_is_started_again(agent: AgentHost, tmp_path: Path, where: str) -> None:
    code = agent.agent / "gpurun" / "agent" / "runtimes" / "keeper.py"
    died = tmp_path / "died"
    trap = (
        f"    if not os.path.exists({str(died)!r}):\n        os.mkdir({str(died)!r})\n        os.kill(os.getpid(), 9)\n"
    )
    text = code.read_text()
    assert where in text
    code.write_text(text.replace(where, where + trap))
    run = agent.submit("print('here')")
    assert agent.wait(run)["state"] == words.SUCCEEDED
    assert died.exists()
    assert Path(run.log).read_text() == "here\n"


@pytest.mark.parametrize("which", [0, 1], ids=["upper", "lower"])
def test_exit_after_one_keeper_was_killed_is_recorded(agent: AgentHost, which: int) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    os.kill(keepers(run)[which], signal.SIGKILL)
    let_end(run)
    record = agent.wait(run)
    assert (record["state"], record["reason"], record["exit_code"]) == (words.FAILED, "exit", 4)


def test_exit_after_all_programs_of_the_keepers_name_were_killed_is_recorded(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    named = [pid for pid in keepers(run) if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert named == [keepers(run)[1]]
    os.kill(named[0], signal.SIGKILL)
    let_end(run)
    assert agent.wait(run)["exit_code"] == 4


def test_stop_after_lower_keeper_was_killed_is_obeyed_once(agent: AgentHost) -> None:
    run = agent.submit(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('TERM', flush=True), time.sleep(1), sys.exit(7)))\n"
        "print('here', flush=True)\n"
        "time.sleep(600)\n"
    )
    agent.until_running(run, b"here")
    os.kill(keepers(run)[1], signal.SIGKILL)
    agent.ask("stop", runs=[run.id], grace=30, force=False)
    record = agent.wait(run)
    assert (record["state"], record["exit_code"]) == (words.STOPPED, 7)
    assert Path(run.log).read_text() == "here\nTERM\n"


def test_end_after_both_keepers_were_killed_is_not_known_and_not_retried(agent: AgentHost) -> None:
    run = agent.submit(WAITS, retries=2)
    agent.until_running(run, b"here")
    for pid in keepers(run):
        os.kill(pid, signal.SIGKILL)
    assert agent.status(run)["state"] == words.RUNNING
    let_end(run)
    record = agent.wait(run)
    assert (record["state"], record["reason"], record["exit_code"]) == (words.LOST, "keeper", None)
    assert record["message"] == words.END_NOT_KNOWN
    assert starts(run) == ["1"]
    assert Path(run.log).read_text() == "here\ndone\n"


def test_job_without_keepers_and_lock_files_is_found_by_its_environment(agent: AgentHost) -> None:
    """A program that was started by the job, and closed what it inherited."""
    run = agent.submit(WAITS.replace("print('here'", "os.closerange(3, 256)\nprint('here'"), retries=1)
    agent.until_running(run, b"here")
    for pid in (*keepers(run), *supervisors(agent, run)):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not supervisors(agent, run))
    sweep(agent)
    record = agent.status(run)
    assert (record["state"], record["attempts"]) == (words.RUNNING, [])
    agent.ask("stop", runs=[run.id], grace=0, force=True)
    assert agent.wait(run)["state"] == words.STOPPED


def test_keeper_killed_before_it_reaped_the_job_loses_no_exit(agent: AgentHost) -> None:
    """Stopped at its last step: the job has ended, and the record of the end is not in its place yet."""
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    _, lower = keepers(run)
    pid = main_process(run)
    os.kill(lower, signal.SIGSTOP)
    let_end(run)
    eventually(lambda: keeper.start_ticks(pid) is None)  # a zombie
    os.kill(lower, signal.SIGKILL)
    assert agent.wait(run)["exit_code"] == 4


def test_job_processes_leave_out_hooks_and_shells(agent: AgentHost, monkeypatch: pytest.MonkeyPatch) -> None:
    run = agent.prepare("")
    monkeypatch.setenv("GPURUN_LOCKS", str(agent.root / "locks"))
    children = []
    for more in ({}, {keeper.HOOK_MARK: "1"}, {keeper.SHELL_MARK: "1"}, {"GPURUN_ATTEMPT": "2"}):
        environment = {"GPURUN_ATTEMPT": "1", **more, keeper.RUN_MARK: run.id}
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment))
    try:
        first, _, _, second = (child.pid for child in children)
        assert bare.job_processes(run, only(attempt=1)) == {first}
        assert bare.job_processes(run, only(attempt=2)) == {second}
        assert bare.job_processes(run, None) == {first, second}
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_job_processes_of_another_roots_run_of_the_same_id_are_none(
    agent: AgentHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = agent.prepare("")
    monkeypatch.setenv("GPURUN_LOCKS", str(agent.root / "locks"))
    (tmp_path / "root").mkdir()
    another = HostPaths(str(tmp_path / "root"))
    machine.make_root_id(another)
    other = machine.root_mark(another)
    children = []
    for more in ({keeper.ROOT_MARK: other}, {keeper.ROOT_MARK: machine.root_mark(run.host)}, {}):
        environment = {"GPURUN_ATTEMPT": "1", **more, keeper.RUN_MARK: run.id, bare.KEEPER_MARK: run.id}
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment))
    try:
        _, own, of_an_earlier_gpurun = (child.pid for child in children)
        assert bare.job_processes(run, only(attempt=1)) == {own, of_an_earlier_gpurun}
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_job_carries_the_mark_of_its_root_from_keeper_to_script(agent: AgentHost) -> None:
    run = agent.submit(WAITS)
    agent.until_running(run, b"here")
    mark = f"{keeper.ROOT_MARK}={machine.root_mark(run.host)}".encode()
    for pid in (*keepers(run), main_process(run)):
        assert mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    let_end(run)
    agent.wait(run)


@contextmanager
def inherited(lock: str) -> Iterator[int]:
    """The process that alone holds the lock, whose file was removed."""
    held = locks.acquire(lock)
    assert held is not None
    child = subprocess.Popen(["sleep", "60"], pass_fds=held.fds)
    try:
        held.release()
        os.unlink(lock)
        yield child.pid
    finally:
        child.kill()
        child.wait()


def test_lock_whose_file_was_removed_is_held_by_whoever_inherited_it(lock: str) -> None:
    with inherited(lock) as pid:
        assert locks.acquire(lock) is None
        assert locks.holders(lock) == {pid}
    assert locks.is_free(lock)


def test_holders_without_beacon_are_found_by_their_open_file(lock: str) -> None:
    """A supervisor of a gpurun that knew no second proof."""
    program = "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\nprint(1, flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.unlink(lock)
        only_opened = open(lock, "w")  # noqa: SIM115
        try:
            assert locks.holders(lock) == {child.pid}
        finally:
            only_opened.close()
            child.kill()


def test_holders_of_another_root_are_none(lock: str, roots: list[HostPaths]) -> None:
    with inherited(lock) as pid:
        assert locks.holders(lock) == {pid}
        locks.work_for(roots[1])
        assert locks.holders(lock) == set()


def test_name_that_somebody_bound_without_listening_keeps_nobody_out(lock: str) -> None:
    name = locks._beacon_names(lock)[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(name)
        held = locks.acquire(lock)
        assert held is not None
        held.release()
