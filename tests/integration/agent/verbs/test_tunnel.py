"""The verb `tunnel` of a real agent, which runs as long as its laptop sends lines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import loopback
from gpurun.agent import vocabulary as words
from gpurun.agent.host import locks
from gpurun.agent.setup import secret_files, sockets
from tests.support.agent_host import AgentHost
from tests.support.part import only
from tests.support.run_folder import RunFolder
from tests.support.waiting import eventually

SLEEPER = "import time; print('here', flush=True); time.sleep(600)"
# The "container" of these tests is another name for the run's own folders.
DOCKER = """\
#!/bin/sh
[ "$1" = exec ] || exit 0
echo "$*" >>{log}
shift 3
exec "$1" "$2" "$3" "$4" {run}/ro/serve/relay.py "{run}/out/sockets/${{6##*/}}" "$7"
"""


def listener(run: str | None, *, port: int | None = None, name: str = "listener") -> Any:
    return {"name": name, "run": run, "service": run is not None and port is None, "port": port}


class Laptop:
    """The laptop's end of the verb."""

    def __init__(self, agent: AgentHost, listeners: list[dict[str, Any]], *, loopback: bool = False) -> None:
        argv = [agent.python, "-I", "-S", str(agent.agent), "tunnel"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=agent.env)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        request = {"nonce": "n0nce", "protocol": words.PROTOCOL, "owner": "ada", "engine": None, "root": None}
        self.send(json.dumps({**request, "tunnel": "abcd", "listeners": listeners, "loopback": loopback}))
        while self.stdout.readline() != b"n0nce\n":
            pass
        self.reply = json.loads(self.stdout.readline())

    @property
    def answer(self) -> Any:
        assert self.reply["ok"], self.reply
        return self.reply["answer"]

    def send(self, line: str = "") -> None:
        self.stdin.write(line.encode() + b"\n")
        self.stdin.flush()

    def state(self, **expected: Any) -> Any:
        """Return the next state that is as expected; skip those before it."""
        while True:
            frame = json.loads(self.stdout.readline())
            record = frame.get("state", {})
            if all(record.get(key) == value for key, value in expected.items()) and record:
                return record

    def rest(self) -> list[dict[str, Any]]:
        """Return all frames to the end."""
        return [json.loads(line) for line in self.stdout]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.stdin, self.stdout):
            with suppress(OSError):
                pipe.close()


class Place:
    def __init__(self, agent: AgentHost, stack: ExitStack) -> None:
        self.agent, self._stack = agent, stack

    def open(self, *listeners: dict[str, Any], loopback: bool = False) -> Laptop:
        laptop = Laptop(self.agent, list(listeners), loopback=loopback)
        self._stack.callback(laptop.close)
        return laptop

    def run(self, run_id: str, **job: Any) -> RunFolder:
        """Make a run that is live: the test holds the lock of its supervisor."""
        host = {"machine_id": self.agent.machine_id.read_text(), "engine": None, **job.pop("host", {})}
        run = RunFolder(Path(self.agent.paths.root), run_id, host=host, token="t", **job)
        held = locks.acquire(locks.run_lock(run_id))
        assert held is not None
        self._stack.callback(held.release)
        return run

    def board(self) -> RunFolder:
        service = {"kind": words.TENSORBOARD, "title": "digits", "idle": 60.0, "run": None}
        return self.run("tensorboard-1111", service=service)

    def listen(self, path: str) -> socket.socket:
        server = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen()
        return server

    def shorten_timeouts(self, **values: float) -> None:
        entry = self.agent.agent / "__main__.py"
        lines = [f"tunnel.{name} = {value}\n" for name, value in values.items()]
        entry.write_text("import gpurun.agent.verbs.tunnel as tunnel\n" + "".join(lines) + entry.read_text())

    @property
    def sockets(self) -> list[str]:
        """The names of the sockets in the folder of locks."""
        return sorted(path.name for path in Path(locks.folder()).rglob("*") if path.is_socket())


@pytest.fixture
def agent(python: str) -> Iterator[AgentHost]:
    """Return an agent in a folder with a short path, because there are sockets below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        host = AgentHost(Path(folder), python)
        yield host
        host.end_all()


@pytest.fixture
def place(agent: AgentHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("GPURUN_LOCKS", str(agent.root / "locks"))
    with ExitStack() as stack:
        yield Place(agent, stack)


def read_all(address: str | int) -> bytes:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.settimeout(20)
        client.connect(address if isinstance(address, str) else ("127.0.0.1", address))
        with client.makefile("rb") as file:
            return file.read()


def test_answer_has_the_socket_or_port_of_each_listener(place: Place) -> None:
    service = {"kind": words.JUPYTER, "title": "digits", "idle": 60.0, "run": None}
    board, lab, job = place.board(), place.run("jupyter-2222", service=service), place.run("train-3333")
    Path(lab.paths.ro, "serve").mkdir()
    secret_files.make_folder(lab.paths)
    Path(lab.paths.token).write_text("s3cret")
    laptop = place.open(
        listener(board.paths.id, name="TensorBoard"),
        listener(lab.paths.id, name="Jupyter"),
        listener(job.paths.id, port=8080, name="port 8080"),
        listener(None, port=9090, name="port 9090"),
    )
    folder = os.path.dirname(sockets.folder(board.paths))
    assert laptop.answer["listeners"] == [
        {
            "name": "TensorBoard",
            "socket": f"{folder}/sockets-tensorboard-1111/tensorboard",
            "port": None,
            "token": None,
        },
        {"name": "Jupyter", "socket": f"{folder}/sockets-jupyter-2222/jupyter", "port": None, "token": "s3cret"},
        # Without an engine the host's loopback is the job's.
        {"name": "port 8080", "socket": None, "port": 8080, "token": None},
        {"name": "port 9090", "socket": None, "port": 9090, "token": None},
    ]
    assert [record["id"] for record in laptop.answer["runs"]] == ["jupyter-2222", "tensorboard-1111", "train-3333"]


def test_probe_is_a_socket_when_a_listener_needs_one(place: Place) -> None:
    probe = place.open(listener(place.board().paths.id)).answer["probe"]
    assert read_all(probe) == read_all(probe) == loopback.GREETING
    assert os.stat(probe).st_mode & 0o777 == 0o600


def test_probe_is_a_port_when_all_listeners_are(place: Place) -> None:
    probe = place.open(listener(None, port=9090)).answer["probe"]
    assert isinstance(probe, int)
    assert read_all(probe) == loopback.GREETING


def test_every_listener_is_a_port_on_the_loopback(place: Place) -> None:
    board = place.board()
    server = place.listen(os.path.join(sockets.make(board.paths, only(host={"runtime": "bare"})), words.TENSORBOARD))
    laptop = place.open(listener(board.paths.id), listener(None, port=9090, name="9090"), loopback=True)
    first, second = laptop.answer["listeners"]
    assert (first["socket"], second["port"]) == (None, 9090)
    assert read_all(laptop.answer["probe"]) == loopback.GREETING

    def answer() -> None:
        while True:
            near, _ = server.accept()
            with near, suppress(BrokenPipeError):  # the check whether the service is ready
                near.sendall(b"the board")

    threading.Thread(target=answer, daemon=True).start()
    assert read_all(first["port"]) == b"the board"


def test_service_is_ready_when_it_answers(place: Place) -> None:
    """A service that is still loading accepts connections already."""
    board = place.board()
    laptop = place.open(listener(board.paths.id))
    assert laptop.state()["ready"] is False
    server = place.listen(laptop.answer["listeners"][0]["socket"])
    near, _ = server.accept()
    assert near.recv(100).startswith(b"GET /api HTTP/1.0\r\n")
    near.close()
    near, _ = server.accept()  # the verb tries again, because there was no answer
    near.recv(100)
    near.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")
    near.close()
    assert laptop.state(ready=True)["state"] == words.RUNNING
    board.end()
    assert laptop.state(state=words.SUCCEEDED)["id"] == board.paths.id
    assert laptop.rest()[-1]["end"]["state"] == words.SUCCEEDED
    assert laptop.process.wait(60) == 0
    assert place.sockets == ["tensorboard"]


def test_port_of_the_user_is_never_tried(place: Place) -> None:
    """A debugger takes only one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        laptop = place.open(listener(place.run("train-3333").paths.id, port=server.getsockname()[1]))
        assert laptop.state()["ready"] is False
        server.settimeout(2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_stream_ends_when_the_last_run_has_ended(place: Place) -> None:
    first, second = place.run("train-1111"), place.run("train-2222")
    laptop = place.open(listener(first.paths.id, port=1, name="a"), listener(second.paths.id, port=2, name="b"))
    first.end()
    assert laptop.state(state=words.SUCCEEDED)["id"] == "train-1111"
    second.end()
    assert next(frame for frame in laptop.rest() if "end" in frame)["end"]["id"] == "train-2222"


def test_real_run_is_reported_to_its_end(agent: AgentHost, place: Place) -> None:
    run = agent.submit("import time; print('here', flush=True); time.sleep(1)")
    agent.until_running(run, b"here")
    laptop = place.open(listener(run.id, port=8080))
    assert laptop.state(state=words.SUCCEEDED)["exit_code"] == 0
    assert [frame["end"]["id"] for frame in laptop.rest() if "end" in frame] == [run.id]


def test_killed_supervisor_is_started_again(agent: AgentHost, place: Place) -> None:
    place.shorten_timeouts(CHECK_INTERVAL=0.05)
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    place.open(listener(run.id, port=8080))
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, 9)
    deadline = time.monotonic() + 20
    while agent.lock_holders(f"run-{run.id}") in ([], [supervisor]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_stream_ends_when_the_laptop_disconnects(place: Place) -> None:
    laptop = place.open(listener(place.board().paths.id))
    assert place.sockets == [f"sockets-probe-abcd.{laptop.process.pid}.0"]
    laptop.stdin.close()
    assert laptop.process.wait(60) == 0
    assert place.sockets == []


def test_stream_ends_when_nobody_reads_its_output(place: Place) -> None:
    """The connection is gone, and the host does not know it yet: the next write fails."""
    board = place.board()
    laptop = place.open(listener(board.paths.id))
    laptop.stdout.close()
    board.end()
    assert laptop.process.wait(60) == 0
    assert place.sockets == []


def test_stream_ends_when_the_laptop_is_silent(place: Place) -> None:
    place.shorten_timeouts(LAPTOP_TIMEOUT=5.0, CHECK_INTERVAL=0.05)
    laptop = place.open(listener(place.board().paths.id))
    for _ in range(12):
        time.sleep(0.5)
        laptop.send()
    assert laptop.process.poll() is None
    assert laptop.process.wait(60) == 0
    assert place.sockets == []


def test_each_line_of_the_laptop_gets_a_beat(place: Place) -> None:
    """So a laptop that woke from sleep sees at once whether the connection still works."""
    laptop = place.open(listener(place.board().paths.id))
    laptop.state()
    for _ in range(2):
        laptop.send()
        assert "beat" in json.loads(laptop.stdout.readline())


def test_probe_of_a_killed_process_is_replaced(place: Place) -> None:
    board = place.board()
    place.open(listener(board.paths.id)).close()
    assert len(place.sockets) == 1
    live = [place.open(listener(board.paths.id)) for _ in range(2)]
    assert [read_all(each.answer["probe"]) for each in live] == [loopback.GREETING] * 2
    assert place.sockets == sorted(f"sockets-probe-abcd.{each.process.pid}.0" for each in live)


class Contained:
    """A run in a pretended container: `docker exec` runs its command with the run's own folders."""

    def __init__(self, place: Place) -> None:
        self.engine, self.log = place.agent.root / "bin/docker", place.agent.root / "docker-log"
        self.run = place.run("train-4444", host={"runtime": "docker", "engine": [str(self.engine)]})
        self.engine.write_text(DOCKER.format(log=self.log, run=self.run.root))
        self.engine.chmod(0o755)

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def wait_for_answer(path: str, expected: bytes, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if read_all(path) == expected:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def inside() -> Iterator[int]:
    """Return the port of a program in the container, which greets."""
    with suppress(OSError):
        yield int(loopback.greet(None))


def relays(agent: AgentHost) -> list[int]:
    return [pid for pid in agent.processes() if b"relay.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_relay_leads_to_a_port_in_a_container(place: Place, inside: int) -> None:
    contained = Contained(place)
    laptop = place.open(listener(contained.run.paths.id, port=inside))
    (answered,) = laptop.answer["listeners"]
    assert answered["socket"] == f"{locks.folder()}/sockets-front-abcd.{laptop.process.pid}.0"
    wait_for_answer(answered["socket"], loopback.GREETING)
    assert contained.log.read_text().startswith("exec --interactive gpurun-train-4444 /bin/sh -c ")
    laptop.stdin.close()
    assert laptop.process.wait(60) == 0
    assert place.sockets == []
    assert not os.listdir(contained.run.paths.sockets)
    assert relays(place.agent) == []


def test_job_cannot_redirect_its_listener_to_a_socket_of_the_host(place: Place, inside: int, tmp_path: Path) -> None:
    contained = Contained(place)
    laptop = place.open(listener(contained.run.paths.id, port=inside))
    front = laptop.answer["listeners"][0]["socket"]
    wait_for_answer(front, loopback.GREETING)
    (relay,) = Path(contained.run.paths.sockets).iterdir()
    relay.unlink()
    relay.symlink_to(laptop.answer["probe"])  # which greets too
    assert read_all(front) == b""


def test_sockets_of_a_killed_process_are_removed(place: Place, inside: int) -> None:
    contained = Contained(place)
    place.open(listener(contained.run.paths.id, port=inside)).close()
    laptop = place.open(listener(contained.run.paths.id, port=inside))
    assert {name.split(".")[1] for name in place.sockets if "abcd" in name and "-" in name} == {str(laptop.process.pid)}


def test_one_that_learns_late_that_its_laptop_went_takes_nothing_from_the_next(place: Place, inside: int) -> None:
    """The laptop changed its network: for a while the host keeps the old connection beside the new one."""
    contained = Contained(place)
    old = place.open(listener(contained.run.paths.id, port=inside))
    wait_for_answer(old.answer["listeners"][0]["socket"], loopback.GREETING)
    new = place.open(listener(contained.run.paths.id, port=inside))
    (answered,) = new.answer["listeners"]
    wait_for_answer(answered["socket"], loopback.GREETING)
    old.stdin.close()
    assert old.process.wait(60) == 0
    assert read_all(answered["socket"]) == loopback.GREETING
    assert read_all(new.answer["probe"]) == loopback.GREETING
    new.stdin.close()
    assert new.process.wait(60) == 0
    assert relays(place.agent) == []
    assert not os.listdir(contained.run.paths.sockets)


def test_killed_relay_is_started_again_after_a_pause(place: Place, inside: int) -> None:
    place.shorten_timeouts(RELAY_PAUSE=0.5, CHECK_INTERVAL=0.05)
    contained = Contained(place)
    (answered,) = place.open(listener(contained.run.paths.id, port=inside)).answer["listeners"]
    wait_for_answer(answered["socket"], loopback.GREETING)
    for pid in relays(place.agent):
        os.kill(pid, 9)
    wait_for_answer(answered["socket"], loopback.GREETING)
    assert contained.calls == 2


def test_relay_that_cannot_start_is_retried_with_pauses(place: Place, inside: int) -> None:
    place.shorten_timeouts(RELAY_PAUSE=0.5, CHECK_INTERVAL=0.02)
    contained = Contained(place)
    contained.engine.write_text(f"#!/bin/sh\n[ $1 = exec ] || exit 0\necho x >>{contained.log}\nexit 1\n")
    laptop = place.open(listener(contained.run.paths.id, port=inside))
    began = time.monotonic()
    eventually(lambda: contained.calls >= 3)
    laptop.send()
    assert contained.calls <= 2 + (time.monotonic() - began) / 0.5


def test_relays_end_when_the_laptop_is_silent(place: Place, inside: int) -> None:
    place.shorten_timeouts(LAPTOP_TIMEOUT=1.0, CHECK_INTERVAL=0.05, RELAY_PAUSE=0.3)
    contained = Contained(place)
    laptop = place.open(listener(contained.run.paths.id, port=inside))
    assert laptop.process.wait(60) == 0
    assert relays(place.agent) == []
    assert place.sockets == []
    assert not os.listdir(contained.run.paths.sockets)


@pytest.mark.parametrize("requested", [listener("train-9999"), listener("../../etc", port=1)])
def test_missing_run_is_an_error(place: Place, requested: dict[str, Any]) -> None:
    laptop = place.open(requested)
    assert (laptop.reply["ok"], laptop.reply["error"]["code"]) == (False, "no_run")
    assert laptop.process.wait(60) == 0


@pytest.mark.parametrize("port", [None, 8080])
def test_run_of_another_host_that_shares_this_home_is_refused(place: Place, port: int | None) -> None:
    run = place.run("train-5555", host={"machine_id": "another", "hostname": "box2"})
    error = place.open(listener(run.paths.id, port=port)).reply["error"]
    assert error["code"] == "elsewhere"
    assert "box2" in error["what"]
