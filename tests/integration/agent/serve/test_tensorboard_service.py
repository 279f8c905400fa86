"""The real TensorBoard on its socket, over the event files that a supervisor copies."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from pathlib import Path

from gpurun.agent.setup import boards
from tests.integration.agent.serve.conftest import Make, Program, Served, open_files
from tests.support.run_folder import RunFolder
from tests.support.waiting import eventually


class Board:
    """The real TensorBoard, and a project that has a folder of that name."""

    def __init__(self, served: Served, tmp_path: Path) -> None:
        self.served = served
        (tmp_path / "tensorboard").mkdir()
        (tmp_path / "tensorboard/__init__.py").write_text("raise ImportError('not this one')")
        self.program: Program = served.start("tensorboard_service.py", env={"PYTHONPATH": str(tmp_path)})

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost")
        with socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.served.sockets / "tensorboard"))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def until_ready(self) -> None:
        eventually(lambda: "is ready" in self.program.said or self.program.ended, 120)
        assert not self.program.ended, self.program.said


def log_a_loss(folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step in range(3):
        value = Summary.Value(tag="loss", simple_value=1.0 / (step + 1))
        writer.add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=[value])))
    writer.close()


def listening_on(pid: int) -> list[str]:
    """Return the TCP ports that this process listens on, as /proc shows them."""
    own, found = open_files(pid), []
    for table in ("tcp", "tcp6"):
        lines = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        found += [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own]
    return found


def test_tensorboard_listens_only_on_its_socket_and_finds_new_files(serve: Make, tmp_path: Path) -> None:
    served = serve("tensorboard")
    log_a_loss(RunFolder(served.folder, "train-1111", project={"name": "digits"}).root / "workspace/logs")
    log_a_loss(RunFolder(served.folder, "other-2222", project={"name": "another"}).root / "workspace/logs")
    shown = boards.Board(served.run.paths, "digits")
    shown.refresh()
    board = Board(served, tmp_path)
    board.until_ready()
    assert b"<html" in board.get("/")[1]
    eventually(lambda: json.loads(board.get("/data/runs")[1]) == ["train-1111/logs"], 60)
    scalars = json.loads(board.get("/data/plugin/scalars/scalars?tag=loss&run=train-1111%2Flogs")[1])
    assert [(step, round(value, 2)) for _, step, value in scalars] == [(0, 1.0), (1, 0.5), (2, 0.33)]
    log_a_loss(RunFolder(served.folder, "train-3333", project={"name": "digits"}).root / "workspace/logs")
    shown.refresh()
    eventually(lambda: "train-3333/logs" in json.loads(board.get("/data/runs")[1]), 60)
    assert os.stat(served.sockets / "tensorboard").st_mode & 0o777 == 0o600
    assert listening_on(board.program.process.pid) == []


def test_listening_port_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"0100007F:{server.getsockname()[1]:04X}" in listening_on(os.getpid())


def test_idle_tensorboard_ends(serve: Make, tmp_path: Path) -> None:
    board = Board(serve("tensorboard", idle=1.2), tmp_path)
    assert board.program.code(120) == 0
    assert "no request for 0.02 minutes: TensorBoard ends" in board.program.said


def test_old_socket_is_replaced(serve: Make, tmp_path: Path) -> None:
    """A restarted supervisor repeats its steps."""
    served = serve("tensorboard")
    served.sockets.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(served.sockets / "tensorboard"))
    board = Board(served, tmp_path)
    board.until_ready()
    assert board.get("/data/environment")[0] == 200
