"""`attend`, asked of a real agent that goes on as long as its laptop speaks."""

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
from tests.unit.agent.conftest import AgentHost
from tests.unit.agent.run_folder import RunFolder

SLEEPER = "import time; print('here', flush=True); time.sleep(60)"
# What a container is here: another name for the run's own folders.
DOCKER = """\
#!/bin/sh
[ "$1" = exec ] || exit 0
echo "$*" >>{log}
shift 3
exec "$1" "$2" "$3" "$4" {run}/ro/serve/relay.py "{run}/out/sockets/${{6##*/}}" "$7"
"""


def door(run: str | None, *, port: int | None = None, name: str = "door") -> dict[str, Any]:
    return {"name": name, "run": run, "service": run is not None and port is None, "port": port}


class Attended:
    """A laptop's end of the verb."""

    def __init__(self, agent: AgentHost, doors: list[dict[str, Any]], *, loopback: bool = False) -> None:
        argv = [agent.python, "-I", "-S", str(agent.agent), "attend"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=agent.env)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        asked = {"nonce": "n0nce", "protocol": words.PROTOCOL, "owner": "ada", "engine": None, "root": None}
        self.say(json.dumps({**asked, "tunnel": "abcd", "doors": doors, "loopback": loopback}))
        while self.stdout.readline() != b"n0nce\n":
            pass
        self.reply = json.loads(self.stdout.readline())

    @property
    def answer(self) -> Any:
        assert self.reply["ok"], self.reply
        return self.reply["answer"]

    def say(self, line: str = "") -> None:
        self.stdin.write(line.encode() + b"\n")
        self.stdin.flush()

    def state(self, **expected: Any) -> Any:
        """The next state that is as expected; what comes before it passes."""
        while True:
            frame = json.loads(self.stdout.readline())
            record = frame.get("state", {})
            if all(record.get(key) == value for key, value in expected.items()) and record:
                return record

    def rest(self) -> list[dict[str, Any]]:
        """All frames to the end."""
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

    def attend(self, *doors: dict[str, Any], loopback: bool = False) -> Attended:
        attended = Attended(self.agent, list(doors), loopback=loopback)
        self._stack.callback(attended.close)
        return attended

    def run(self, run_id: str, **job: Any) -> RunFolder:
        """A run that lives: the lock of its supervisor is held here."""
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

    def quickly(self, **values: float) -> None:
        """Shorten what the verb waits for."""
        entry = self.agent.agent / "__main__.py"
        lines = [f"attend.{name} = {value}\n" for name, value in values.items()]
        entry.write_text("import gpurun.agent.verbs.attend as attend\n" + "".join(lines) + entry.read_text())

    @property
    def left(self) -> list[str]:
        """Sockets in the folder of locks."""
        return sorted(path.name for path in Path(locks.folder()).rglob("*") if path.is_socket())


@pytest.fixture
def agent(python: str) -> Iterator[AgentHost]:
    """In a short place: there are sockets below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        host = AgentHost(Path(folder), python)
        yield host
        host.end_all()


@pytest.fixture
def place(agent: AgentHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("GPURUN_LOCKS", str(agent.root / "locks"))
    with ExitStack() as stack:
        yield Place(agent, stack)


def all_of(place: str | int) -> bytes:
    with socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET) as client:
        client.settimeout(20)
        client.connect(place if isinstance(place, str) else ("127.0.0.1", place))
        with client.makefile("rb") as file:
            return file.read()


def test_where_each_door_leads(place: Place) -> None:
    service = {"kind": words.JUPYTER, "title": "digits", "idle": 60.0, "run": None}
    board, lab, job = place.board(), place.run("jupyter-2222", service=service), place.run("train-3333")
    Path(lab.paths.ro, "serve").mkdir()
    secret_files.make_folder(lab.paths)
    Path(lab.paths.token).write_text("s3cret")
    attended = place.attend(
        door(board.paths.id, name="TensorBoard"),
        door(lab.paths.id, name="Jupyter"),
        door(job.paths.id, port=8080, name="port 8080"),
        door(None, port=9090, name="port 9090"),
    )
    folder = os.path.dirname(sockets.folder(board.paths))
    assert attended.answer["doors"] == [
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
    assert [record["id"] for record in attended.answer["runs"]] == ["jupyter-2222", "tensorboard-1111", "train-3333"]


def test_a_probe_greets_by_a_socket_where_a_door_is_one(place: Place) -> None:
    probe = place.attend(door(place.board().paths.id)).answer["probe"]
    assert all_of(probe) == all_of(probe) == loopback.GREETING
    assert os.stat(probe).st_mode & 0o777 == 0o600


def test_a_probe_greets_by_a_port_where_all_doors_are(place: Place) -> None:
    probe = place.attend(door(None, port=9090)).answer["probe"]
    assert isinstance(probe, int)
    assert all_of(probe) == loopback.GREETING


def test_on_the_loopback_every_door_is_a_port(place: Place) -> None:
    board = place.board()
    server = place.listen(os.path.join(sockets.make(board.paths, {"host": {"runtime": "bare"}}), words.TENSORBOARD))
    attended = place.attend(door(board.paths.id), door(None, port=9090, name="9090"), loopback=True)
    first, second = attended.answer["doors"]
    assert (first["socket"], second["port"]) == (None, 9090)
    assert all_of(attended.answer["probe"]) == loopback.GREETING

    def answer() -> None:
        while True:
            near, _ = server.accept()
            with near, suppress(BrokenPipeError):  # who only looks whether it is ready
                near.sendall(b"the board")

    threading.Thread(target=answer, daemon=True).start()
    assert all_of(first["port"]) == b"the board"


def test_a_service_is_ready_when_it_answers(place: Place) -> None:
    """One that still loads takes connections already."""
    board = place.board()
    attended = place.attend(door(board.paths.id))
    assert attended.state()["ready"] is False
    server = place.listen(attended.answer["doors"][0]["socket"])
    near, _ = server.accept()
    assert near.recv(100).startswith(b"GET /api HTTP/1.0\r\n")
    near.close()
    near, _ = server.accept()  # asked again: this was no answer
    near.recv(100)
    near.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")
    near.close()
    assert attended.state(ready=True)["state"] == words.RUNNING
    board.end()
    assert attended.state(state=words.SUCCEEDED)["id"] == board.paths.id
    assert attended.rest()[-1]["end"]["state"] == words.SUCCEEDED
    assert attended.process.wait(20) == 0
    assert place.left == ["tensorboard"]


def test_a_port_of_the_users_is_never_tried(place: Place) -> None:
    """A debugger takes one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        attended = place.attend(door(place.run("train-3333").paths.id, port=server.getsockname()[1]))
        assert attended.state()["ready"] is False
        server.settimeout(2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_it_lasts_until_the_last_run_has_ended(place: Place) -> None:
    first, second = place.run("train-1111"), place.run("train-2222")
    attended = place.attend(door(first.paths.id, port=1, name="a"), door(second.paths.id, port=2, name="b"))
    first.end()
    assert attended.state(state=words.SUCCEEDED)["id"] == "train-1111"
    second.end()
    assert next(frame for frame in attended.rest() if "end" in frame)["end"]["id"] == "train-2222"


def test_a_real_run_is_told_to_its_end(agent: AgentHost, place: Place) -> None:
    run = agent.submit("import time; print('here', flush=True); time.sleep(1)")
    agent.until_running(run, b"here")
    attended = place.attend(door(run.id, port=8080))
    assert attended.state(state=words.SUCCEEDED)["exit_code"] == 0
    assert [frame["end"]["id"] for frame in attended.rest() if "end" in frame] == [run.id]


def test_a_supervisor_that_was_killed_is_started_again_meanwhile(agent: AgentHost, place: Place) -> None:
    place.quickly(TICK=0.05)
    run = agent.submit(SLEEPER)
    agent.until_running(run, b"here")
    place.attend(door(run.id, port=8080))
    (supervisor,) = agent.lock_holders(f"run-{run.id}")
    os.kill(supervisor, 9)
    deadline = time.monotonic() + 20
    while agent.lock_holders(f"run-{run.id}") in ([], [supervisor]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_laptop_that_went_away_ends_it(place: Place) -> None:
    attended = place.attend(door(place.board().paths.id))
    assert place.left == [f"sockets-probe-abcd.{attended.process.pid}.0"]
    attended.stdin.close()
    assert attended.process.wait(20) == 0
    assert place.left == []


def test_a_laptop_that_nobody_reads_for_ends_it(place: Place) -> None:
    """The connection is gone, and its other end has not heard of it yet: the next word meets nobody."""
    board = place.board()
    attended = place.attend(door(board.paths.id))
    attended.stdout.close()
    board.end()
    assert attended.process.wait(20) == 0
    assert place.left == []


def test_a_silent_laptop_ends_it_and_one_that_speaks_keeps_it(place: Place) -> None:
    place.quickly(SILENCE=1.5, TICK=0.05)
    attended = place.attend(door(place.board().paths.id))
    for _ in range(6):
        time.sleep(0.5)
        attended.say()
    assert attended.process.poll() is None
    assert attended.process.wait(20) == 0
    assert place.left == []


def test_each_word_of_the_laptop_is_answered(place: Place) -> None:
    """By this a laptop that woke knows at once whether the connection lives."""
    attended = place.attend(door(place.board().paths.id))
    attended.state()
    for _ in range(2):
        attended.say()
        assert "beat" in json.loads(attended.stdout.readline())


def test_a_probe_that_was_left_by_a_killed_one_is_no_hindrance(place: Place) -> None:
    board = place.board()
    place.attend(door(board.paths.id)).close()
    assert len(place.left) == 1
    alive = [place.attend(door(board.paths.id)) for _ in range(2)]
    assert [all_of(one.answer["probe"]) for one in alive] == [loopback.GREETING] * 2
    assert place.left == sorted(f"sockets-probe-abcd.{one.process.pid}.0" for one in alive)


class Contained:
    """A run in what stands for a container: `docker exec` runs its command with the run's own folders."""

    def __init__(self, place: Place) -> None:
        self.engine, self.log = place.agent.root / "bin/docker", place.agent.root / "docker-log"
        self.run = place.run("train-4444", host={"runtime": "docker", "engine": [str(self.engine)]})
        self.engine.write_text(DOCKER.format(log=self.log, run=self.run.root))
        self.engine.chmod(0o755)

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def until_it_answers(path: str, expected: bytes, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if all_of(path) == expected:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def inside() -> Iterator[int]:
    """The port of a program in the container: it greets."""
    with suppress(OSError):
        yield int(loopback.greet(None))


def relays(agent: AgentHost) -> list[int]:
    return [pid for pid in agent.processes() if b"relay.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_port_in_a_container_is_led_out_by_a_relay(place: Place, inside: int) -> None:
    contained = Contained(place)
    attended = place.attend(door(contained.run.paths.id, port=inside))
    (told,) = attended.answer["doors"]
    assert told["socket"] == f"{locks.folder()}/sockets-front-abcd.{attended.process.pid}.0"
    until_it_answers(told["socket"], loopback.GREETING)
    assert contained.log.read_text().startswith("exec --interactive gpurun-train-4444 /bin/sh -c ")
    attended.stdin.close()
    assert attended.process.wait(20) == 0
    assert place.left == []
    assert not os.listdir(contained.run.paths.sockets)
    assert relays(place.agent) == []


def test_a_job_cannot_lead_its_page_to_a_socket_of_the_host(place: Place, inside: int, tmp_path: Path) -> None:
    contained = Contained(place)
    attended = place.attend(door(contained.run.paths.id, port=inside))
    front = attended.answer["doors"][0]["socket"]
    until_it_answers(front, loopback.GREETING)
    (relay,) = Path(contained.run.paths.sockets).iterdir()
    relay.unlink()
    relay.symlink_to(attended.answer["probe"])  # which would greet too
    assert all_of(front) == b""


def test_what_a_killed_one_left_goes(place: Place, inside: int) -> None:
    contained = Contained(place)
    place.attend(door(contained.run.paths.id, port=inside)).close()
    attended = place.attend(door(contained.run.paths.id, port=inside))
    assert {name.split(".")[1] for name in place.left if "abcd" in name and "-" in name} == {str(attended.process.pid)}


def test_one_that_learns_late_that_its_laptop_went_takes_nothing_from_the_next(place: Place, inside: int) -> None:
    """The laptop changed its network: for a while the host keeps the old connection beside the new one."""
    contained = Contained(place)
    old = place.attend(door(contained.run.paths.id, port=inside))
    until_it_answers(old.answer["doors"][0]["socket"], loopback.GREETING)
    new = place.attend(door(contained.run.paths.id, port=inside))
    (told,) = new.answer["doors"]
    until_it_answers(told["socket"], loopback.GREETING)
    old.stdin.close()
    assert old.process.wait(20) == 0
    assert all_of(told["socket"]) == loopback.GREETING
    assert all_of(new.answer["probe"]) == loopback.GREETING
    new.stdin.close()
    assert new.process.wait(20) == 0
    assert relays(place.agent) == []
    assert not os.listdir(contained.run.paths.sockets)


def test_a_relay_that_was_killed_is_started_again_gently(place: Place, inside: int) -> None:
    place.quickly(GENTLE=0.5, TICK=0.05)
    contained = Contained(place)
    (told,) = place.attend(door(contained.run.paths.id, port=inside)).answer["doors"]
    until_it_answers(told["socket"], loopback.GREETING)
    for pid in relays(place.agent):
        os.kill(pid, 9)
    until_it_answers(told["socket"], loopback.GREETING)
    assert contained.calls == 2


def test_a_container_that_lets_nobody_in_is_not_pestered(place: Place, inside: int) -> None:
    place.quickly(GENTLE=0.5, TICK=0.02)
    contained = Contained(place)
    contained.engine.write_text(f"#!/bin/sh\n[ $1 = exec ] || exit 0\necho x >>{contained.log}\nexit 1\n")
    attended = place.attend(door(contained.run.paths.id, port=inside))
    time.sleep(1.2)
    attended.say()
    assert 2 <= contained.calls <= 4


def test_a_silent_laptop_ends_the_relays_too(place: Place, inside: int) -> None:
    place.quickly(SILENCE=1.0, TICK=0.05, GENTLE=0.3)
    contained = Contained(place)
    attended = place.attend(door(contained.run.paths.id, port=inside))
    assert attended.process.wait(20) == 0
    assert relays(place.agent) == []
    assert place.left == []
    assert not os.listdir(contained.run.paths.sockets)


@pytest.mark.parametrize("asked", [door("train-9999"), door("../../etc", port=1)])
def test_a_run_that_is_not_there_is_told(place: Place, asked: dict[str, Any]) -> None:
    attended = place.attend(asked)
    assert (attended.reply["ok"], attended.reply["error"]["code"]) == (False, "no_run")
    assert attended.process.wait(20) == 0


@pytest.mark.parametrize("port", [None, 8080])
def test_a_run_of_another_host_that_shares_this_home_is_not_led_to(place: Place, port: int | None) -> None:
    run = place.run("train-5555", host={"machine_id": "another", "hostname": "box2"})
    error = place.attend(door(run.paths.id, port=port)).reply["error"]
    assert error["code"] == "elsewhere"
    assert "box2" in error["what"]
