"""Tunnels, opened and closed as a user does it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Laptop
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

SERVER = """\
import http.server, os, sys
os.makedirs("page", exist_ok=True)
open("page/index.html", "w").write("the page of " + os.environ["GPURUN_RUN_ID"])
handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory="page")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
"""
LOGS_A_LOSS = """\
import sys, time
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter("logs")
value = Summary.Value(tag="loss", simple_value=0.5)
writer.add_event(Event(step=1, wall_time=time.time(), summary=Summary(value=[value])))
writer.close()
"""


@pytest.fixture(autouse=True)
def project(laptop: Laptop) -> Iterator[None]:
    """Set this host in the settings; close at the end what a test leaves open."""
    (laptop.project / "gpurun.toml").write_text('host = "demo"\nruntime = "bare"\ngpus = 0\n')
    (laptop.project / "serve.py").write_text(SERVER)
    yield
    laptop.gpurun("tunnel", "--all")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(url: str, path: str | None = None, **fields: str) -> tuple[int, bytes]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    try:
        connection.request("GET", path or place.path, headers={"Host": place.netloc, **fields})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def printed_url(process: subprocess.Popen[bytes], name: str) -> str:
    """Return the URL that the tunnel prints for the listener of that name."""
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.startswith(name), (line, process.stderr and process.stderr.read())
    return line.split()[-1]


def interrupt(process: subprocess.Popen[bytes]) -> str:
    """Send Ctrl-C; return what the process printed on stderr."""
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    return err.decode()


def ssh_processes(laptop: Laptop) -> list[str]:
    """Return the command lines of the ssh processes of this laptop's tunnels."""
    lines = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = place.read_bytes().decode(errors="replace")
            if f"{laptop.environment['XDG_RUNTIME_DIR']}/gpurun/ssh/t-" in line:
                lines.append(line)
    return lines


def is_running(pid: int) -> bool:
    """Return whether the process runs and is not a zombie."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    return False


@pytest.fixture
def served(laptop: Laptop) -> tuple[str, int]:
    """Submit a run that serves a page; return it and its port."""
    port = free_port()
    run = laptop.submit("serve.py", "--", str(port))
    laptop.until(run, "running")
    return run, port


def test_port_of_a_run_is_open_until_ctrl_c(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    local = free_port()
    process = laptop.start("tunnel", run, "-p", f"{local}:{port}")
    url = printed_url(process, f"port {port}")
    assert url == f"http://127.0.0.1:{local}/"
    eventually(lambda: get(url)[0] == 200)
    assert get(url)[1].decode() == f"the page of {run}"
    assert get(url, Host="evil.example")[0] == 403
    assert get(url, Origin="http://evil.example")[0] == 403
    (tunnel,) = laptop.json("tunnel", "--list")
    assert (tunnel["host"], tunnel["state"], tunnel["detached"]) == ("demo", "up", False)
    printed = interrupt(process)
    assert process.returncode == 0
    assert printed.rstrip().endswith("closed")
    assert "Traceback" not in printed
    with pytest.raises(ConnectionRefusedError):
        get(url)
    assert laptop.json("tunnel", "--list") == []
    assert ssh_processes(laptop) == []
    assert laptop.state(run) == "running"


def test_closed_terminal_closes_the_tunnel(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    process = laptop.start("tunnel", run, "-p", f"{free_port()}:{port}")
    printed_url(process, f"port {port}")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert laptop.json("tunnel", "--list") == []
    assert ssh_processes(laptop) == []
    assert list(Path(laptop.environment["XDG_RUNTIME_DIR"]).glob("gpurun/ssh/t-*")) == []
    assert laptop.state(run) == "running"


def test_tunnel_reconnects(laptop: Laptop, served: tuple[str, int], embedded_host: EmbeddedHost) -> None:
    run, port = served
    process = laptop.start("tunnel", run, "-p", str(port))
    url = printed_url(process, f"port {port}")
    eventually(lambda: get(url)[0] == 200)
    embedded_host.hang_up()
    assert get(url) == (200, f"the page of {run}".encode()), "the listener holds the request meanwhile"
    printed = interrupt(process)
    assert printed.count("lost contact with demo") == printed.count("reconnected to demo") == 1


def test_detached_tunnel_stays_until_it_is_closed(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    done = laptop.gpurun("tunnel", run, "-p", str(port), "-d")
    assert done.code == 0, done.err
    (tunnel,) = laptop.json("tunnel", "--list")
    url = tunnel["listeners"][0]["url"]
    assert done.out.split()[-1] == url
    assert f"gpurun tunnel --close {tunnel['id']}" in done.err
    assert tunnel["detached"] is True
    eventually(lambda: get(url)[0] == 200)
    assert tunnel["id"] in laptop.ok("tunnel", "--list")
    laptop.ok("tunnel", "--close", run)
    with pytest.raises(ConnectionRefusedError):
        get(url)
    assert laptop.json("tunnel", "--list") == []
    assert ssh_processes(laptop) == []
    eventually(lambda: not is_running(tunnel["pid"]))


def test_two_tunnels_to_one_port_get_different_local_ports(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    for _ in range(2):
        laptop.ok("tunnel", run, "-p", str(port), "-d")
    first, second = (each["listeners"][0] for each in laptop.json("tunnel", "--list"))
    assert first["port"] != second["port"]
    for one in (first, second):
        eventually(lambda url=one["url"]: get(url)[0] == 200)  # type: ignore[misc]


def test_tunnel_ends_with_its_run(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    process = laptop.start("tunnel", run, "-p", str(port))
    printed_url(process, f"port {port}")
    laptop.ok("stop", "--force", run)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"{run} was stopped" in err.decode()


def test_tunnel_to_a_port_of_an_ended_run_is_refused(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    done = laptop.gpurun("tunnel", run, "-p", "8080")
    assert done.code == 2
    assert f"{run} has ended" in done.err


def test_ctrl_c_while_a_detached_tunnel_connects(laptop: Laptop) -> None:
    """Both processes get it; one prints the message."""
    hangs = laptop.home / "ssh-that-hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    environment = laptop.environment
    laptop.environment = {**environment, "GPURUN_SSH": str(hangs)}
    process = laptop.start("tunnel", "-p", "8080", "-d")
    laptop.environment = environment
    eventually(lambda: len(laptop.json("tunnel", "--list")) == 1)
    time.sleep(0.5)
    printed = interrupt(process)
    assert printed.count("closed") == 1
    assert "Traceback" not in printed
    assert laptop.json("tunnel", "--list") == []


def test_tensorboard_shows_the_runs_of_the_project(laptop: Laptop) -> None:
    """TensorBoard must be installed in the tests' own Python."""
    assert importlib.util.find_spec("tensorboard") is not None
    (laptop.project / "log.py").write_text(LOGS_A_LOSS)
    first = laptop.submit("log.py")
    laptop.ok("wait", first)
    process = laptop.start("tunnel", "--tensorboard")
    url = printed_url(process, "TensorBoard")
    assert b"TensorBoard" in get(url)[1]
    eventually(lambda: f"{first}/logs" in json.loads(get(url, "/data/runs")[1]))
    second = laptop.submit("log.py")
    eventually(lambda: f"{second}/logs" in json.loads(get(url, "/data/runs")[1]))
    printed = interrupt(process)
    board = next(run for run in laptop.json("ps")["runs"] if run["script"] == "tensorboard")
    assert f"gpurun stop {board['id']}" in printed
    again = laptop.start("tunnel", "-d", "--json", "--tensorboard")
    out, _ = again.communicate(timeout=60)
    tunnel = json.loads(out)
    assert tunnel["listeners"][0]["run"] == board["id"], "the running TensorBoard is found"
    assert tunnel["listeners"][0]["url"] == url, "so bookmarks stay valid"
    laptop.ok("stop", board["id"])
    eventually(lambda: laptop.json("tunnel", "--list") == [])


def test_shell_session_runs_one_command(laptop: Laptop) -> None:
    assert laptop.gpurun("shell", "-g", "0", "--", "true").code == 0
    done = laptop.gpurun("shell", "-g", "0", "--", "sh", "-c", "ls; pwd; exit 7")
    assert done.code == 7, done.err
    assert "train.py" in done.out
    run = Path(done.out.split()[-1]).parent.name
    assert laptop.until(run, "succeeded", "failed") == "failed", "the session ends with its last shell"
    assert laptop.json("status", run)["run"]["exit_code"] == 7


def test_next_session_has_the_files_of_the_last_one(laptop: Laptop) -> None:
    done = laptop.gpurun("shell", "-g", "0", "--", "sh", "-c", "echo mine >notes; pwd")
    laptop.until(Path(done.out.strip()).parent.name, "succeeded")
    (laptop.project / "train.py").write_text("print('new')")
    done = laptop.gpurun("shell", "-g", "0", "--", "cat", "notes", "train.py")
    assert done.out == "mine\nprint('new')", done.err


def test_shell_session_with_a_run_is_refused(laptop: Laptop) -> None:
    done = laptop.gpurun("shell", "train-7f3k", "-g", "0")
    assert done.code == 2
    assert "-g starts a new session" in done.err
