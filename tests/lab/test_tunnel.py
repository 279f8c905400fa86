"""Tunnels to a port of a job, over a real sshd into a real container: they open, reconnect, and let nobody else in."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.host import steps
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import ADA, PASSWORD
from tests.lab.jobs import SLEEPER, Jobs
from tests.lab.terminal import Terminal
from tests.lab.tunnels import SERVER, Tunnel, get, through_proxy, tunnel, until_answers
from tests.support.faultproxy import FaultProxy

PORT = "18080"  # of the job; the laptop uses another, because a bare host shares this machine's loopback
NOTICED_IN, BACK_IN = 15.0, 5.0  # seconds, as promised
SLACK = 1.5  # the machine has two cores and runs other suites
GPURUN = [sys.executable, "-m", "gpurun"]


@pytest.fixture
def project(laptop: Laptop) -> Path:
    return laptop.project({"gpurun.toml": "", "page.py": SERVER})


@pytest.fixture
def run(jobs: Jobs, project: Path) -> str:
    """Submit a job in a container that serves a page on its own loopback."""
    return serving(jobs, project)


def serving(jobs: Jobs, project: Path, *options: str) -> str:
    submitted = jobs.ask("submit", "page.py", "-H", jobs.alias, "-g", "0", *options, "--", PORT, cwd=project)
    return submitted.stdout.strip()


@pytest.fixture
def proxy(laptop: Laptop, host: LabHost) -> Iterator[FaultProxy]:
    with through_proxy(laptop, host) as made:
        yield made


@pytest.fixture
def disturbed(jobs: Jobs, laptop: Laptop, project: Path, proxy: FaultProxy) -> Iterator[Tunnel]:
    """Open a tunnel to such a job over a connection whose faults the test controls."""
    far = Jobs(laptop, jobs.host, "far")
    with tunnel(laptop, serving(far, project), "-p", f"{steps.free_port()}:{PORT}", cwd=project) as opened:
        yield opened


def page(opened: Tunnel) -> str:
    return opened.url(f"port {PORT}")


def test_tunnel_to_a_port_of_the_jobs_loopback(laptop: Laptop, run: str, project: Path) -> None:
    with tunnel(laptop, run, "-p", f"28080:{PORT}", cwd=project) as opened:
        assert page(opened) == "http://127.0.0.1:28080/"
        assert get(page(opened)) == (200, b"hello from the job")
        assert get(page(opened), Host="evil.example")[0] == 403
        assert get(page(opened), Origin="http://evil.example")[0] == 403
        assert opened.interrupt() == 130
        assert opened.lines[-1] == "closed"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 28080))
    assert laptop.gpurun("status", run, "--json").json["run"]["state"] == "running"


def test_tunnel_to_a_port_of_a_job_that_is_root(laptop: Laptop, jobs: Jobs, project: Path) -> None:
    (project / "gpurun.toml").write_text('user = "root"\n')
    with tunnel(laptop, serving(jobs, project), "-p", f"{steps.free_port()}:{PORT}", cwd=project) as opened:
        assert get(page(opened)) == (200, b"hello from the job")


def test_second_tunnel_to_a_run_gets_the_next_port(laptop: Laptop, run: str, project: Path) -> None:
    with (
        tunnel(laptop, run, "-p", f"28080:{PORT}", cwd=project) as one,
        tunnel(laptop, run, "-p", f"28080:{PORT}", cwd=project) as other,
    ):
        assert page(other) == "http://127.0.0.1:28081/"
        other.wait_for_line(f"port 28080 is in use on this laptop, so port {PORT} is at 28081", 5)
        assert [get(page(opened))[0] for opened in (one, other)] == [200, 200]
        one.interrupt()
        assert get(page(other))[0] == 200


def test_configured_ports_of_a_live_job_are_opened(laptop: Laptop, jobs: Jobs, project: Path) -> None:
    (project / "gpurun.toml").write_text(f'ports = ["28080:{PORT}"]\n')
    serving(jobs, project)
    with tunnel(laptop, "-H", "ada", cwd=project) as opened:
        assert sorted(opened.listeners) == ["TensorBoard", f"port {PORT}"]
        assert get(page(opened))[0] == 200


def test_tunnel_ends_with_its_job(laptop: Laptop, run: str, project: Path) -> None:
    with tunnel(laptop, run, "-p", f"{steps.free_port()}:{PORT}", cwd=project) as opened:
        laptop.gpurun("stop", run, "--grace", "0s")
        assert opened.process.wait(timeout=20) == 0
        opened.wait_for_line(f"{run} was stopped", 2)
    again = laptop.gpurun("tunnel", run, "-p", PORT, check=False)
    assert again.returncode == 2
    assert "has ended" in again.stderr


def test_client_before_the_program_listens_gets_through(laptop: Laptop, jobs: Jobs, project: Path) -> None:
    late = serving(jobs, project, "-e", "LATE=8")
    with tunnel(laptop, late, "-p", f"{steps.free_port()}:{PORT}", cwd=project) as opened:
        began = time.monotonic()
        status, answer = get(page(opened), Accept="text/html")
        assert (status, b"opens by itself" in answer) == (503, True)  # a browser gets a page
        assert get(page(opened), seconds=40) == (200, b"hello from the job")  # the request of a program waits
        assert time.monotonic() - began > 2


def test_many_clients_at_once_and_a_large_response(laptop: Laptop, run: str, project: Path) -> None:
    with (
        tunnel(laptop, run, "-p", f"{steps.free_port()}:{PORT}", cwd=project) as opened,
        ThreadPoolExecutor(100) as pool,
    ):
        answers = list(pool.map(lambda _: get(page(opened) + "50000"), range(100)))
        assert all(status == 200 and len(body) == 50_000 for status, body in answers)
        assert len(get(page(opened) + "200000000", seconds=120)[1]) == 200_000_000


def cut(proxy: FaultProxy, host: LabHost) -> None:
    proxy.reset()


def black_hole(proxy: FaultProxy, host: LabHost) -> None:
    proxy.blackhole()


def away(proxy: FaultProxy, host: LabHost) -> None:
    """The laptop has no network: connections break, and new ones fail."""
    proxy.refuse()
    proxy.reset()


def restart_sshd(proxy: FaultProxy, host: LabHost) -> None:
    host.sshd.stop()
    host.run("pkill", "-f", "sshd: gpurun-ada", user=None)
    host.sshd.start()


@pytest.mark.parametrize("fault", [cut, black_hole, away, restart_sshd])
def test_tunnel_reconnects(
    disturbed: Tunnel, proxy: FaultProxy, host: LabHost, fault: Callable[[FaultProxy, LabHost], None]
) -> None:
    where = page(disturbed)
    assert get(where)[0] == 200
    fault(proxy, host)
    assert disturbed.wait_for_line("lost contact with far", NOTICED_IN * SLACK) < NOTICED_IN * SLACK
    if fault in (black_hole, away):
        time.sleep(5)
        proxy.reset()
        proxy.heal()
    assert until_answers(where, BACK_IN * 3) < BACK_IN * SLACK
    disturbed.wait_for_line("reconnected to far", 5)
    assert page(disturbed) == where
    assert [line for line in disturbed.lines if "Traceback" in line or "lost" in line] == []


def test_tunnel_reconnects_after_the_laptop_slept(disturbed: Tunnel, proxy: FaultProxy) -> None:
    """A sleep looks like a frozen process: the clocks jump."""
    pids = [disturbed.process.pid, *children(disturbed.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    proxy.blackhole()  # what the host sends meanwhile is lost, so the connection breaks
    time.sleep(20)
    proxy.reset()
    proxy.heal()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert until_answers(page(disturbed), 30) < BACK_IN * SLACK
    disturbed.wait_for_line("reconnected to far", 5)


def test_fifty_reconnections_leave_nothing_behind(
    disturbed: Tunnel, proxy: FaultProxy, laptop: Laptop, host: LabHost
) -> None:
    def cycle() -> None:
        proxy.reset()
        disturbed.wait_for_line("reconnected to far", 30)
        until_answers(page(disturbed), 60)

    def left() -> tuple[int, int, list[str], list[str]]:
        """Return the number of descriptors and processes of the laptop, and the processes and sockets of the host."""
        pid = disturbed.process.pid
        there = sorted(name(each) for each in host.box.processes(ADA.uid))
        sockets = host.run("sh", "-c", "ls /tmp/gpurun-21001/ /tmp/gpurun-21001/sockets-*/").split()
        return len(os.listdir(f"/proc/{pid}/fd")), len(children(pid)), there, sorted(sockets)

    def settled() -> tuple[int, int, list[str], list[str]]:
        """Wait until the host has noticed the broken connections."""
        before = left()
        for _ in range(60):
            time.sleep(1)
            now = left()
            if now == before and not any("tunnel" in each for each in now[2][1:]):
                return now
            before = now
        return before

    cycle()
    before = left()
    for _ in range(49):
        cycle()
    after = settled()
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1]
    assert len(after[2]) <= len(before[2])
    assert len(after[3]) <= len(before[3])


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in found]


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return ""


def test_sshd_that_forwards_only_to_ports_works(
    laptop: Laptop, run: str, project: Path, host: LabHost, jobs: Jobs
) -> None:
    host.sshd.start("AllowStreamLocalForwarding no")
    laptop.gpurun("ps")  # so the refusal must be noticed on the tunnel's own connection
    with tunnel(laptop, run, "-p", f"{steps.free_port()}:{PORT}", cwd=project) as opened:
        assert get(page(opened))[0] == 200
        opened.wait_for_line("other users of that host can reach", 2)


def test_sshd_that_forwards_nothing_is_an_error(laptop: Laptop, run: str, project: Path, host: LabHost) -> None:
    host.sshd.start("AllowStreamLocalForwarding no", "AllowTcpForwarding no")
    refused = laptop.gpurun("tunnel", run, "-p", f"{steps.free_port()}:{PORT}", cwd=project, check=False)
    assert refused.returncode == 125
    assert "forwards nothing" in refused.stderr
    assert "AllowTcpForwarding yes" in refused.stderr


def test_password_is_asked_once_in_the_foreground(laptop: Laptop, jobs: Jobs, host: LabHost) -> None:
    sshd_log = host.root / "var/log/sshd.log"
    with FaultProxy(host.sshd.port) as proxy:
        laptop.add_alias(
            "guest", port=proxy.port, user="gpurun-pat", lines=["PreferredAuthentications password", "LogLevel ERROR"]
        )
        laptop.trust_port(proxy.port, like="ada")
        with Terminal([*GPURUN, "tunnel", "-H", "guest", "-p", "28090:28091"], env=laptop.env, cwd=laptop.home) as at:
            at.expect("password:")
            at.type(PASSWORD)
            at.expect("http://127.0.0.1:28090/", 60)
            before, failed = host.sshd.traffic().logins, sshd_log.read_text(errors="replace").count("Failed password")
            proxy.reset()
            at.expect("lost contact with guest", 20)
            at.expect("guest asks you to log in again", 30)
            at.expect("password:")
            time.sleep(5)
            assert host.sshd.traffic().logins == before
            assert sshd_log.read_text(errors="replace").count("Failed password") == failed
            at.type(PASSWORD)
            at.expect("reconnected to guest", 30)


def test_detached_tunnel_is_listed_and_closed(laptop: Laptop, run: str, project: Path) -> None:
    opened = laptop.gpurun(
        "tunnel", run, "-p", f"{steps.free_port()}:{PORT}", "-d", "--json", cwd=project, timeout=60
    ).json
    (listener,) = opened["listeners"]
    assert get(listener["url"])[0] == 200
    (listed,) = laptop.gpurun("tunnel", "--list", "--json").json
    assert (listed["id"], listed["state"], listed["detached"]) == (opened["id"], "up", True)
    laptop.gpurun("tunnel", "--close", opened["id"])
    assert laptop.gpurun("tunnel", "--list", "--json").json == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener["port"]))


def test_log_and_status_reconnect(laptop: Laptop, jobs: Jobs, proxy: FaultProxy) -> None:
    far = Jobs(laptop, jobs.host, "far")
    ticks = "import time\nfor n in range(60): print('tick', n, flush=True); time.sleep(0.5)\n"
    run = far.submit(ticks)
    far.until_running(run)
    log = laptop.start("logs", "-f", run)
    status = laptop.start("status", "--watch", run)
    time.sleep(3)
    proxy.blackhole()
    timers = [threading.Timer(14, proxy.reset), threading.Timer(14.1, proxy.heal)]
    for timer in timers:
        timer.start()
    out, told = log.communicate(timeout=120)
    assert out.decode().splitlines() == [f"tick {n}" for n in range(60)]
    assert told.decode().count("lost contact with far") == 1
    out, told = status.communicate(timeout=60)
    assert b"succeeded" in out
    assert b"no contact with far" in told


def test_shell_session_ends_with_its_shell(laptop: Laptop, jobs: Jobs, host: LabHost) -> None:
    project = laptop.project({"gpurun.toml": "", "answer.py": "ANSWER = 42\n"})
    command = [*GPURUN, "shell", "-g", "1", "-H", "ada"]
    with Terminal(command, env=laptop.env | {"TERM": "xterm"}, cwd=project) as at:
        at.expect("$ ", 60)
        at.type("python -c 'import answer; print(answer.ANSWER + 1)'")
        at.expect("43")
        (run,) = set(re.findall(r"shell-[0-9a-z]{4}", at.shown))
        assert [gpu["uuid"] for gpu in jobs.record(run)["gpus"]] == host.gpus.uuids[:1]
        at.type("echo mine > kept.txt; exit 3")
        assert at.wait() == 3
    assert jobs.until_ended(run)[0] == "succeeded"
    again = laptop.gpurun("shell", "-g", "0", "-H", "ada", "--", "cat", "kept.txt", "answer.py", cwd=project)
    assert again.stdout == "mine\nANSWER = 42\n"


def test_port_that_nothing_listens_on_does_not_end_the_tunnel(laptop: Laptop, jobs: Jobs) -> None:
    """The request is refused; the tunnel stays open."""
    run = jobs.submit(SLEEPER)
    with tunnel(laptop, run, "-p", f"{steps.free_port()}:9", cwd=laptop.home) as opened:
        status, said = get(opened.url("port 9"), Accept="text/html")
        assert (status, b"port 9 of" in said) == (503, True)
        assert opened.process.poll() is None
