"""Runs from `start` to their end, without an engine: real agent processes, real faults."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.setup import wrapper
from gpurun.agent.state import journal
from tests.support.agent_host import AgentHost, make_job
from tests.support.waiting import eventually

SLEEPER = "import time; print('here', flush=True); time.sleep(600)"
# Goes on until the file `end` is in its folder, however slow this machine is.
WAITS_FOR_END = """
import os, time
print('here', flush=True)
while not os.path.exists('end'): time.sleep(0.02)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"


def test_script_runs_to_its_end(agent: AgentHost) -> None:
    run = agent.submit("import os; print('hello', os.environ['GPURUN_RUN_ID']); open('best.ckpt', 'w').write('w')")
    record = agent.wait(run)
    assert (record["state"], record["reason"], record["exit_code"]) == (words.SUCCEEDED, "exit", 0)
    assert Path(run.log).read_text() == f"hello {run.id}\n"
    assert Path(run.workspace, "best.ckpt").exists()
    assert not Path(run.snapshot, "best.ckpt").exists()


@pytest.mark.parametrize(
    ("script", "state", "reason", "code"),
    [
        ("raise SystemExit(3)", words.FAILED, "exit", 3),
        ("import os; os.kill(os.getpid(), 9)", words.FAILED, "signal", 137),
        ("import os; os._exit(255)", words.FAILED, "exit", 255),
    ],
)
def test_exit_is_the_scripts_own(agent: AgentHost, script: str, state: str, reason: str, code: int) -> None:
    record = agent.wait(agent.submit(script))
    assert (record["state"], record["reason"], record["exit_code"]) == (state, reason, code)


def test_start_returns_while_the_job_sleeps_and_nothing_hangs_on_the_connection(agent: AgentHost) -> None:
    """`exchange` reads to the end of the output: a process that kept a descriptor would hold it, and `exchange` gives up."""
    run = agent.prepare(SLEEPER)
    agent.start(run)
    agent.until_running(run)


def test_same_submit_sent_twice_is_one_run(agent: AgentHost) -> None:
    run = agent.prepare(SLEEPER)
    job = json.loads(Path(run.job).read_text())
    assert agent.ask("prepare", job=job, total_bytes=1)["created"] is False
    agent.start(run)
    agent.start(run)
    agent.until_running(run)
    assert len(agent.ask("ps")["runs"]) == 1
    assert len(agent.lock_holders(f"run-{run.id}")) == 1


def test_id_of_another_submit_is_refused(agent: AgentHost) -> None:
    run = agent.prepare(SLEEPER)
    job = {**json.loads(Path(run.job).read_text()), "token": "another"}
    assert agent.refused("prepare", job=job, total_bytes=1)["code"] == "id_taken"


def test_snapshot_that_differs_from_the_manifest_is_not_started(agent: AgentHost) -> None:
    run = agent.prepare(SLEEPER)
    token = json.loads(Path(run.job).read_text())["token"]
    sent = {"digest": "0" * 64, "coarse": "0" * 64, "count": 1, "bytes": 1}
    error = agent.refused("start", run=run.id, token=token, manifest=sent, env={}, follow=False)
    assert error["code"] == "snapshot_differs"
    assert agent.status(run)["state"] == words.SYNCING


def test_stop_is_term_to_the_main_process_alone(agent: AgentHost) -> None:
    """TERM to the whole group would kill DataLoader workers under the trainer's feet."""
    run = agent.submit(
        "import os, signal, subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        "    print('worker', worker.poll(), os.path.exists('../out/stop'), flush=True)\n"
        "    worker.kill()\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('here', flush=True)\n"
        "time.sleep(600)\n"
    )
    agent.until_running(run, b"here")
    agent.ask("stop", runs=[run.id], grace=None, force=False)
    record = agent.wait(run)
    assert (record["state"], record["reason"], record["exit_code"]) == (words.STOPPED, "stop", 0)
    assert b"worker None True" in Path(run.log).read_bytes()


def test_kill_follows_when_the_grace_time_is_over(agent: AgentHost) -> None:
    run = agent.submit(DEAF)
    agent.until_running(run, b"here")
    agent.ask("stop", runs=[run.id], grace=0.5, force=False)
    record = agent.wait(run)
    assert (record["state"], record["exit_code"]) == (words.STOPPED, 137)


def test_force_shortens_a_stop_that_runs(agent: AgentHost) -> None:
    run = agent.submit(DEAF)
    agent.until_running(run, b"here")
    agent.ask("stop", runs=[run.id], grace=600, force=False)
    agent.ask("stop", runs=[run.id], grace=None, force=True)
    assert agent.wait(run)["exit_code"] == 137


def test_max_duration_is_enforced_on_the_host(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER, max_duration=0.5)
    record = agent.wait(run)
    assert (record["state"], record["reason"]) == (words.TIMED_OUT, "duration")


def test_stop_before_the_start_ends_the_run_and_start_does_not_revive_it(agent: AgentHost) -> None:
    run = agent.prepare(SLEEPER)
    agent.ask("stop", runs=[run.id], grace=None, force=False)
    agent.start(run)
    assert agent.status(run)["state"] == words.STOPPED
    assert not Path(run.log).exists()


def test_secrets_are_gone_when_the_run_ends(agent: AgentHost) -> None:
    secret = secrets.token_hex(16)
    run = agent.submit("import os; print(len(os.environ['TOKEN']))", env={"TOKEN": secret})
    agent.wait(run)
    assert Path(run.log).read_text() == "32\n"
    left = [path for path in agent.home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert left == []


def test_killed_supervisor_is_started_again_by_the_next_verb(agent: AgentHost) -> None:
    run = agent.submit(WAITS_FOR_END + "print('done')")
    agent.until_running(run, b"here")
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGKILL)
    agent.ask("ps")
    (other,) = agent.lock_holders(f"run-{run.id}")
    assert other != supervisor
    Path(run.workspace, "end").touch()
    record = agent.wait(run)
    assert record["state"] == words.SUCCEEDED
    assert Path(run.log).read_text() == "here\ndone\n"


def test_exit_while_nobody_watched_is_recorded(agent: AgentHost) -> None:
    run = agent.submit(WAITS_FOR_END + "os._exit(4)")
    agent.until_running(run, b"here")
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGKILL)
    Path(run.workspace, "end").touch()
    eventually(lambda: not agent.lock_holders(f"job-{run.id}"))
    assert agent.wait(run)["exit_code"] == 4


def test_job_and_keeper_killed_is_lost(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    supervisors = agent.lock_holders(f"run-{run.id}")
    pids = {*agent.lock_holders(f"job-{run.id}"), *supervisors}
    for sent in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: none sees the death of another
        for pid in pids:
            os.kill(pid, sent)
    record = agent.wait(run)
    assert (record["state"], record["reason"]) == (words.LOST, "keeper")


def test_job_whose_start_could_not_be_noted_is_watched_all_the_same(agent: AgentHost) -> None:
    """A disk that is full, or fails, for a moment: with and without the reserve."""
    door = agent.agent / "__main__.py"
    refuse = (
        "import errno, os\n"
        "real, refused = os.write, []\n"
        "def write(fd, data):\n"
        '    if b\'"event": "running"\' in data and len(refused) < 2:\n'
        "        refused.append(data)\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    return real(fd, data)\n"
        "os.write = write\n"
    )
    door.write_text(refuse + door.read_text())
    run = agent.submit("import time; print('here', flush=True); time.sleep(3)")
    agent.until_running(run, b"here")
    assert "No space left" in Path(run.supervisor_log).read_text()
    assert agent.wait(run)["state"] == words.SUCCEEDED


def test_stop_of_an_ended_run_kills_a_job_that_runs_on(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, signal.SIGKILL)
    pid = json.loads(Path(run.keeper).read_text())["pid"]
    journal.record_end(run, words.FAILED, "internal", message="as an earlier gpurun ended it")
    assert Path(f"/proc/{pid}").exists()
    assert agent.ask("stop", runs=[run.id], grace=0, force=True)["runs"][0]["reason"] == "internal"
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_reboot_is_lost_and_not_failed(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    agent.end_all()
    agent.boot_id.write_text(secrets.token_hex(16))
    record = agent.wait(run)
    assert (record["state"], record["reason"]) == (words.LOST, "reboot")


def test_runs_of_another_machine_are_shown_and_never_reconciled(agent: AgentHost) -> None:
    """A home that two hosts share."""
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    agent.end_all()
    agent.machine_id.write_text(secrets.token_hex(16))
    agent.boot_id.write_text(secrets.token_hex(16))
    (record,) = agent.ask("ps")["runs"]
    # Nobody here knows whether it runs: the machine that could say so may be down, or gone.
    assert (record["id"], record["state"], record["live"]) == (run.id, words.UNKNOWN, False)
    assert not Path(run.exit).exists()
    assert agent.lock_holders(f"run-{run.id}") == []


def pass_hours(agent: AgentHost, hours: float) -> None:
    """Let the agent find both clocks of the host so much later."""
    door = agent.agent / "__main__.py"
    real = door.read_text().rpartition("# as later\n")[2]
    later = "import time\nt, up = time.time, time.clock_gettime\n"
    later += f"time.time, time.clock_gettime = lambda: t() + {hours * 3600}, lambda of: up(of) + {hours * 3600}\n"
    door.write_text(later + "# as later\n" + real)


def test_reconcile_upload_that_stands_for_an_hour_fails_it(agent: AgentHost) -> None:
    run = agent.prepare(SLEEPER)
    agent.ask("ps")
    assert agent.status(run)["state"] == words.SYNCING
    pass_hours(agent, 1.1)
    agent.ask("ps")  # sees for the first time where it stands
    pass_hours(agent, 2.0)
    agent.ask("ps")
    assert agent.status(run)["state"] == words.SYNCING
    pass_hours(agent, 2.2)
    agent.ask("ps")
    record = agent.status(run)
    assert (record["state"], record["reason"]) == (words.FAILED, "sync")


@pytest.mark.parametrize("place", ["snapshot/.data.bin.Ab12Cd", "carried/.step=9000.ckpt.Ab12Cd"])
def test_reconcile_upload_that_grows_is_left_alone(agent: AgentHost, place: str) -> None:
    run = agent.prepare(SLEEPER)
    arriving = Path(run.root, place)
    arriving.parent.mkdir(exist_ok=True)
    for hours in (1.1, 2.2, 3.3, 4.4):
        with arriving.open("ab") as file:
            file.write(b"x" * 1000)
        pass_hours(agent, hours)
        agent.ask("ps")
        assert agent.status(run)["state"] == words.SYNCING


def test_reconcile_clock_that_is_set_ends_no_upload(agent: AgentHost) -> None:
    run = agent.prepare(SLEEPER)
    agent.ask("ps")
    door = agent.agent / "__main__.py"
    door.write_text("import time; real = time.time; time.time = lambda: real() + 2e8\n" + door.read_text())
    agent.ask("ps")
    agent.ask("ps")
    assert agent.status(run)["state"] == words.SYNCING


def frames(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    while data:
        line, _, data = data.partition(b"\n")
        head = json.loads(line)
        size = head.get("size", 0)
        found.append((head, data[:size]))
        data = data[size:]
    return found


def test_followed_log_is_whole_and_raw(agent: AgentHost) -> None:
    run = agent.submit(
        "import sys, time\n"
        "for n in range(40):\n"
        "    sys.stdout.buffer.write(b'\\r%d%%\\xff' % n); sys.stdout.flush(); time.sleep(0.1)\n"
    )
    _, data = agent.exchange("logs", run=run.id, follow=True)
    found = frames(data)
    log = [(head["offset"], body) for head, body in found if head.get("stream") == "log"]
    assert b"".join(body for _, body in log) == Path(run.log).read_bytes()
    assert len(log) > 3  # as it was written, not at the end
    assert found[-1][0]["end"]["state"] == words.SUCCEEDED
    cut = log[2][0]
    _, data = agent.exchange("logs", run=run.id, offset=cut)
    rest = b"".join(body for head, body in frames(data) if head.get("stream") == "log")
    assert rest == Path(run.log).read_bytes()[cut:]


def test_tail_since_and_times(agent: AgentHost) -> None:
    run = agent.submit("import time\nfor n in range(4): print('line', n, flush=True); time.sleep(1.1)")
    agent.wait(run)

    def text(**request: Any) -> str:
        _, data = agent.exchange("logs", run=run.id, **request)
        return b"".join(body for head, body in frames(data) if head.get("stream") == "log").decode()

    assert text(tail=2) == "line 2\nline 3\n"
    assert text(tail=0) == ""
    assert text(tail=99) == "line 0\nline 1\nline 2\nline 3\n"
    stamped = text(times=True).splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["line 0", "line 1", "line 2", "line 3"]
    assert len({line.split(" ", 1)[0] for line in stamped}) >= 3
    now = time.time()
    Path(run.log_times).write_text(f"{now - 7200} 7\n{now - 7000} 14\n{now - 100} 21\n{now - 50} 28\n")
    assert text(since=3600) == "line 2\nline 3\n"


def test_live_run_is_not_removed_and_an_ended_one_is(agent: AgentHost) -> None:
    run = agent.submit(SLEEPER)
    assert agent.refused("rm", runs=[run.id])["code"] == "live"
    agent.ask("stop", runs=[run.id], grace=1, force=True)
    agent.wait(run)
    assert agent.ask("rm", runs=[run.id])["removed"] == [run.id]
    assert not Path(run.root).exists()
    assert agent.ask("rm", runs=[run.id])["removed"] == []


def test_more_gpus_than_the_host_has_fail_at_once(agent: AgentHost) -> None:
    job = make_job("train-0000", resources={"gpus": 2, "memory": None, "cpus": None, "shm": None})
    error = agent.refused("prepare", job=job, total_bytes=1)
    assert error["code"] == "too_many_gpus"
    assert "--gpus 0" in error["next"]
    assert agent.ask("ps", all=True)["runs"] == []


def test_noise_of_shell_startup_files_stands_before_the_answer(agent: AgentHost) -> None:
    door = agent.agent / "__main__.py"
    door.write_text("print('Welcome!')\n" + door.read_text())
    assert agent.ask("ps")["runs"] == []


def test_ended_job_whose_wrapper_is_started_again_does_not_run(agent: AgentHost) -> None:
    """As `docker start` of a kept container does."""
    run = agent.submit("open('count', 'a').write('x'); print('ran')")
    agent.wait(run)
    argv = ["sh", run.wrapper, run.log, "python3", "train.py"]
    again = subprocess.run(argv, env=agent.env, cwd=run.workspace, capture_output=True, check=False)
    assert again.returncode == wrapper.STARTED_BEFORE
    assert (Path(run.workspace, "count").read_text(), Path(run.log).read_text()) == ("x", "ran\n")
