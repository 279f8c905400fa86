"""Ways to what runs on a host, as a person opens and closes them."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Laptop

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
    """Its settings are for this host; what a test leaves open is closed."""
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


def until(answer: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not answer():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def address(process: subprocess.Popen[bytes], name: str) -> str:
    """Where the door of that name is, from the tunnel's own words."""
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.startswith(name), (line, process.stderr and process.stderr.read())
    return line.split()[-1]


def interrupt(process: subprocess.Popen[bytes]) -> str:
    """Ctrl-C; what it said on stderr."""
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    return err.decode()


def carriers(laptop: Laptop) -> list[str]:
    """The ssh of tunnels that this laptop has."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = place.read_bytes().decode(errors="replace")
            if f"{laptop.environment['XDG_RUNTIME_DIR']}/gpurun/ssh/t-" in line:
                found.append(line)
    return found


def runs(pid: int) -> bool:
    """Whether it is more than the shell of a process, which somebody has yet to reap."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    return False


@pytest.fixture
def served(laptop: Laptop) -> tuple[str, int]:
    """A run that serves a page, and its port."""
    port = free_port()
    run = laptop.submit("serve.py", "--", str(port))
    laptop.until(run, "running")
    return run, port


def test_a_port_of_a_run_is_open_here_until_ctrl_c(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    local = free_port()
    process = laptop.start("tunnel", run, "-p", f"{local}:{port}")
    url = address(process, f"port {port}")
    assert url == f"http://127.0.0.1:{local}/"
    until(lambda: get(url)[0] == 200)
    assert get(url)[1].decode() == f"the page of {run}"
    assert get(url, Host="evil.example")[0] == 403
    assert get(url, Origin="http://evil.example")[0] == 403
    (told,) = laptop.json("tunnel", "--list")
    assert (told["host"], told["state"], told["detached"]) == ("demo", "up", False)
    said = interrupt(process)
    assert process.returncode == 0
    assert said.rstrip().endswith("closed")
    assert "Traceback" not in said
    with pytest.raises(ConnectionRefusedError):
        get(url)
    assert laptop.json("tunnel", "--list") == []
    assert carriers(laptop) == []
    assert laptop.state(run) == "running"


def test_a_closed_terminal_closes_it_whole(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    process = laptop.start("tunnel", run, "-p", f"{free_port()}:{port}")
    address(process, f"port {port}")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert laptop.json("tunnel", "--list") == []
    assert carriers(laptop) == []
    assert list(Path(laptop.environment["XDG_RUNTIME_DIR"]).glob("gpurun/ssh/t-*")) == []
    assert laptop.state(run) == "running"


def test_it_heals_by_itself(laptop: Laptop, served: tuple[str, int], embedded_host: EmbeddedHost) -> None:
    run, port = served
    process = laptop.start("tunnel", run, "-p", str(port))
    url = address(process, f"port {port}")
    until(lambda: get(url)[0] == 200)
    embedded_host.hang_up()
    assert get(url) == (200, f"the page of {run}".encode()), "who comes meanwhile is held"
    said = interrupt(process)
    assert said.count("lost contact with demo") == said.count("back on demo") == 1


def test_in_the_background_until_it_is_closed(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    done = laptop.gpurun("tunnel", run, "-p", str(port), "-d")
    assert done.code == 0, done.err
    (told,) = laptop.json("tunnel", "--list")
    url = told["doors"][0]["url"]
    assert done.out.split()[-1] == url
    assert f"gpurun tunnel --close {told['id']}" in done.err
    assert told["detached"] is True
    until(lambda: get(url)[0] == 200)
    assert told["id"] in laptop.ok("tunnel", "--list")
    laptop.ok("tunnel", "--close", run)
    with pytest.raises(ConnectionRefusedError):
        get(url)
    assert laptop.json("tunnel", "--list") == []
    assert carriers(laptop) == []
    until(lambda: not runs(told["pid"]))


def test_two_tunnels_to_one_port_get_a_port_each(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    for _ in range(2):
        laptop.ok("tunnel", run, "-p", str(port), "-d")
    first, second = (one["doors"][0] for one in laptop.json("tunnel", "--list"))
    assert first["port"] != second["port"]
    for one in (first, second):
        until(lambda url=one["url"]: get(url)[0] == 200)  # type: ignore[misc]


def test_a_tunnel_ends_with_the_run_behind_it(laptop: Laptop, served: tuple[str, int]) -> None:
    run, port = served
    process = laptop.start("tunnel", run, "-p", str(port))
    address(process, f"port {port}")
    laptop.ok("stop", "--force", run)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"{run} was stopped" in err.decode()


def test_a_run_that_has_ended_has_no_ports(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    done = laptop.gpurun("tunnel", run, "-p", "8080")
    assert done.code == 2
    assert f"{run} has ended" in done.err


def test_ctrl_c_while_a_detached_one_connects(laptop: Laptop) -> None:
    """Both processes get it; one speaks."""
    hangs = laptop.home / "ssh-that-hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    environment = laptop.environment
    laptop.environment = {**environment, "GPURUN_SSH": str(hangs)}
    process = laptop.start("tunnel", "-p", "8080", "-d")
    laptop.environment = environment
    until(lambda: len(laptop.json("tunnel", "--list")) == 1)
    time.sleep(0.5)
    said = interrupt(process)
    assert said.count("closed") == 1
    assert "Traceback" not in said
    assert laptop.json("tunnel", "--list") == []


def test_tensorboard_over_the_runs_of_the_project(laptop: Laptop) -> None:
    """The tests' own Python has it, or this fails."""
    assert importlib.util.find_spec("tensorboard") is not None
    (laptop.project / "log.py").write_text(LOGS_A_LOSS)
    first = laptop.submit("log.py")
    laptop.ok("wait", first)
    process = laptop.start("tunnel", "--tensorboard")
    url = address(process, "TensorBoard")
    assert b"TensorBoard" in get(url)[1]
    until(lambda: f"{first}/logs" in json.loads(get(url, "/data/runs")[1]))
    second = laptop.submit("log.py")
    until(lambda: f"{second}/logs" in json.loads(get(url, "/data/runs")[1]))
    said = interrupt(process)
    board = next(run for run in laptop.json("ps")["runs"] if run["script"] == "tensorboard")
    assert f"gpurun stop {board['id']}" in said
    again = laptop.start("tunnel", "-d", "--json", "--tensorboard")
    out, _ = again.communicate(timeout=60)
    told = json.loads(out)
    assert told["doors"][0]["run"] == board["id"], "the one that runs is found"
    assert told["doors"][0]["url"] == url, "a bookmark stays good"
    laptop.ok("stop", board["id"])
    until(lambda: laptop.json("tunnel", "--list") == [])


def test_a_session_for_one_command(laptop: Laptop) -> None:
    assert laptop.gpurun("shell", "-g", "0", "--", "true").code == 0
    done = laptop.gpurun("shell", "-g", "0", "--", "sh", "-c", "ls; pwd; exit 7")
    assert done.code == 7, done.err
    assert "train.py" in done.out
    run = Path(done.out.split()[-1]).parent.name
    assert laptop.until(run, "succeeded") == "succeeded", "it ends with its last shell"


def test_the_files_of_a_session_are_there_in_the_next(laptop: Laptop) -> None:
    done = laptop.gpurun("shell", "-g", "0", "--", "sh", "-c", "echo mine >notes; pwd")
    laptop.until(Path(done.out.strip()).parent.name, "succeeded")
    (laptop.project / "train.py").write_text("print('new')")
    done = laptop.gpurun("shell", "-g", "0", "--", "cat", "notes", "train.py")
    assert done.out == "mine\nprint('new')", done.err


def test_a_session_takes_no_run(laptop: Laptop) -> None:
    done = laptop.gpurun("shell", "train-7f3k", "-g", "0")
    assert done.code == 2
    assert "-g begins a session of its own" in done.err
