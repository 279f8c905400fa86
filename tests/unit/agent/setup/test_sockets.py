"""The folder that a run's services listen in."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.paths import HostPaths
from gpurun.agent.setup import sockets
from tests.support.run_folder import RunFolder

DOCKER: Any = {"host": {"runtime": "docker"}}
BARE: Any = {"host": {"runtime": "bare"}}
LIMIT = 104  # bytes of a socket's path, on the strictest system


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "host", "x" * 46 + "-7f3k")


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("job", [DOCKER, BARE])
def test_nobody_else_can_enter(run: RunFolder, job: Any) -> None:
    previous = os.umask(0)
    try:
        path = sockets.make(run.paths, job)
    finally:
        os.umask(previous)
    assert path == sockets.folder(run.paths)
    assert mode(path) == 0o700
    assert sockets.make(run.paths, job) == path  # a supervisor that is started again


def test_without_an_engine_it_is_a_folder_of_the_host(run: RunFolder) -> None:
    assert not os.path.islink(sockets.make(run.paths, BARE))
    assert not os.path.exists(run.paths.sockets)


def test_in_a_container_it_lies_in_out_behind_a_short_link(run: RunFolder) -> None:
    path = sockets.make(run.paths, DOCKER)
    assert os.readlink(path) == run.paths.sockets
    assert mode(run.paths.sockets) == 0o700


def test_the_longest_id_leaves_room_in_the_usual_place(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_000)
    monkeypatch.setattr("gpurun.agent.host.locks.folder", lambda: "/tmp/gpurun-2000000000")
    assert len(run.paths.id) == 51
    assert len(f"{sockets.folder(run.paths)}/65535.abcd.4194304") < LIMIT


@pytest.mark.parametrize("job", [DOCKER, BARE])
def test_a_socket_in_it_can_be_reached_by_the_short_path(run: RunFolder, job: Any, tmp_path: Path) -> None:
    short = tmp_path / "s"
    short.symlink_to(sockets.make(run.paths, job))
    inside = Path(run.paths.sockets if job is DOCKER else sockets.folder(run.paths))
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        here = os.open(inside, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/tensorboard")  # as the container sees it: by another path
        os.close(here)
        server.listen()
        client.connect(str(short / "tensorboard"))
        if job is DOCKER:
            sockets.connect(run.paths, job, "tensorboard").close()


@pytest.mark.parametrize("what", ["jupyter", "folder"])
def test_a_job_cannot_lead_us_to_a_socket_of_the_host(run: RunFolder, tmp_path: Path, what: str) -> None:
    """The engine's, say: a page of the job's, in the user's browser, would speak to it."""
    sockets.make(run.paths, DOCKER)
    (tmp_path / "host").mkdir(exist_ok=True)
    here = os.open(tmp_path / "host", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/jupyter")
        os.close(here)
        server.listen()
        if what == "folder":
            os.rmdir(run.paths.sockets)
            os.symlink(tmp_path / "host", run.paths.sockets)
        else:
            os.symlink(tmp_path / "host/jupyter", Path(run.paths.sockets, "jupyter"))
        with pytest.raises(OSError, match=r"Not a directory|Socket operation on non-socket"):
            sockets.connect(run.paths, DOCKER, "jupyter")


@pytest.mark.parametrize("job", [DOCKER, BARE])
def test_nothing_is_left_after_the_end(run: RunFolder, job: Any) -> None:
    path = sockets.make(run.paths, job)
    Path(path, "jupyter.d").mkdir()
    Path(path, "jupyter.d/kernel").touch()
    for _ in range(2):
        sockets.remove(run.paths)
        assert not os.path.lexists(path)
        assert not os.path.exists(run.paths.sockets)
    assert os.path.isdir(run.paths.out)


def test_a_job_cannot_have_other_folders_removed(run: RunFolder, tmp_path: Path) -> None:
    """out/ is the job's own to write: it may put a link in the place of its sockets."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    path = sockets.make(run.paths, DOCKER)
    os.rmdir(run.paths.sockets)
    os.symlink(precious, run.paths.sockets)
    sockets.remove(run.paths)
    assert (precious / "file").exists()
    assert not os.path.lexists(path)


LISTENER = "pymp-abcdefgh/listener-abcdefgh"  # what multiprocessing makes in TMPDIR


def test_temporary_files_have_a_short_path_to_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / ("deep" * 20), "x" * 46 + "-7f3k").paths
    os.makedirs(run.tmp)
    monkeypatch.setattr("gpurun.agent.host.locks.folder", lambda: "/tmp/gpurun-2000000000")
    assert len(os.path.join(sockets.tmp_link(run), LISTENER)) < LIMIT
    monkeypatch.setattr("gpurun.agent.host.locks.folder", lambda: str(tmp_path))
    assert (sockets.tmp(run), os.readlink(sockets.tmp(run))) == (sockets.tmp_link(run), run.tmp)
    sockets.remove(run)
    assert not os.path.lexists(sockets.tmp_link(run))
    sockets.remove(run)  # nothing there is no error


def test_temporary_files_need_no_other_path_where_there_is_room() -> None:
    run = HostPaths("/home/ada/.gpurun").run("train-7f3k")
    assert sockets.tmp(run) == run.tmp


@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_folder_that_a_job_replaced_is_made_anew_and_removed(run: RunFolder, tmp_path: Path, kind: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    place = Path(run.paths.sockets)

    made: dict[str, Callable[[], None]] = {
        "link": lambda: place.symlink_to(mine),
        "pipe": lambda: os.mkfifo(place),
        "file": place.touch,
    }
    made[kind]()
    sockets.make(run.paths, DOCKER)
    assert not place.is_symlink()
    assert mode(str(place)) == 0o700
    assert mode(str(mine)) == 0o755
    place.rmdir()
    made[kind]()
    sockets.remove(run.paths)
    assert not os.path.lexists(place)
    assert mine.is_dir()
