"""Runs that are services: what lies in their ro/, what is left of it, and which session goes on where another ended."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.agent.setup import secret_files, services, sockets, wrapper
from tests.support.run_folder import RunFolder

PLACES = wrapper.IN_CONTAINER


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path))


def make_job(kind: str | None, **changes: Any) -> Any:
    service = {"kind": kind, "title": "digits on box", "idle": 60.0, "run": None}
    job = {
        "command": ["python", "train.py"],
        "project": {"name": "digits"},
        "image": None,
        "host": {"runtime": "bare", "id": "here"},
        "owner": "ada",
        "service": service if kind else None,
    }
    return {**job, **changes}


@pytest.mark.parametrize("service", [None, {}])
def test_a_job_is_no_service(service: Any, tmp_path: Path) -> None:
    """Nor is one that an older laptop submitted, which says nothing of it."""
    job = make_job(None)
    if service is None:
        del job["service"]
    run = RunFolder(tmp_path)
    assert services.kind(job) is None
    assert services.command(job, "/ro") == ["python", "train.py"]
    assert services.tools(job) == []
    assert services.holder(job, "/ro", ["true"]) == []
    services.lay_out(run.paths, job, PLACES)
    assert os.listdir(run.paths.ro) == []
    assert not os.path.exists(sockets.folder(run.paths))


@pytest.mark.parametrize("kind", words.SERVICES)
def test_the_program_of_each_service_travels_with_the_agent(kind: str, tmp_path: Path) -> None:
    run, job = RunFolder(tmp_path), make_job(kind)
    services.lay_out(run.paths, job, PLACES)
    assert os.path.isfile(services.command(job, run.paths.ro)[1])
    told = json.loads(Path(run.paths.ro, "serve/service.json").read_text())
    assert told == {
        **job["service"],
        "project": "digits",
        "workspace": "/workspace",
        "sockets": "/gpurun/out/sockets",
        "board": "/gpurun/board",
        "gpus": 0,
        "container": False,
        "token_file": "/gpurun/secrets/token",
    }
    assert stat.S_IMODE(os.stat(sockets.folder(run.paths)).st_mode) == 0o700


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    """A tunnel that heals needs the programs; the disk may be full by then."""
    run = RunFolder(tmp_path)
    services.copy_programs(run.paths)
    there = Path(run.paths.ro, "serve")
    Path(there, "relay.py").write_text("of an older gpurun")
    before = {path.name: path.stat().st_ino for path in there.iterdir()}
    services.copy_programs(run.paths)
    after = {path.name: path.stat().st_ino for path in there.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"relay.py"}
    assert Path(there, "relay.py").read_bytes() == Path(services.PROGRAMS, "relay.py").read_bytes()


def test_only_a_session_is_held_open_by_its_shells() -> None:
    attach = ["python", "/gpurun/ro/serve/attach.py"]
    assert services.holder(make_job(words.SHELL), "/gpurun/ro", []) == attach
    assert services.holder(make_job(words.SHELL), "/gpurun/ro", ["true"]) == [*attach, "--record"]
    assert services.holder(make_job(words.JUPYTER), "/gpurun/ro", ["true"]) == []


@pytest.mark.parametrize(
    ("image", "runtime", "brought"), [(None, "docker", False), ("other:1", "docker", True), (None, "bare", True)]
)
def test_tools_are_brought_where_the_image_is_not_ours(image: str | None, runtime: str, *, brought: bool) -> None:
    told = {"image": image, "host": {"runtime": runtime}}
    assert bool(services.tools(make_job(words.TENSORBOARD, **told))) is brought
    assert bool(services.tools(make_job(words.JUPYTER, **told))) is brought
    assert services.tools(make_job(words.SHELL, **told)) == []


def test_jupyters_token_is_a_secret_that_stays_the_same(tmp_path: Path) -> None:
    run, job = RunFolder(tmp_path), make_job(words.JUPYTER)
    assert services.token(run.paths) is None
    services.lay_out(run.paths, job, PLACES)
    token = services.token(run.paths)
    assert token is not None
    assert len(token) >= 32
    assert stat.S_IMODE(os.stat(run.paths.token).st_mode) == 0o600
    services.lay_out(run.paths, job, PLACES)  # a supervisor that is started again: somebody may hold the address
    assert services.token(run.paths) == token


@pytest.mark.parametrize("kind", [words.TENSORBOARD, words.SHELL])
def test_nobody_else_has_a_token(kind: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    services.lay_out(run.paths, make_job(kind), PLACES)
    assert services.token(run.paths) is None


def test_at_the_end_sockets_and_token_go(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    services.lay_out(run.paths, make_job(words.JUPYTER), PLACES)
    for _ in range(2):
        services.wipe(run.paths)
        secret_files.wipe(run.paths)
        assert services.token(run.paths) is None
        assert not os.path.lexists(sockets.folder(run.paths))


class Past:
    """Sessions of the past, on one host."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def session(
        self,
        *,
        kind: str = words.SHELL,
        project: str = "digits",
        host: str = "here",
        owner: str = "ada",
        end: bool = True,
    ) -> str:
        self.count += 1
        told = {"project": {"name": project}, "host": {"runtime": "bare", "id": host}, "owner": owner}
        job = make_job(kind, created=float(self.count), **told)
        run = RunFolder(self.folder, f"shell-000{self.count}", **job)
        if end:
            run.end()
        return run.paths.id

    def earlier(self, kind: str = words.SHELL) -> str | None:
        new = RunPaths(str(self.folder / "runs/shell-9999"))
        found = services.earlier(new.host, new, make_job(kind))
        return found.id if found else None


def test_the_newest_session_of_the_same_kind_and_project_goes_on(tmp_path: Path) -> None:
    past = Past(tmp_path)
    assert past.earlier() is None
    past.session()
    newest = past.session()
    past.session(project="other")
    past.session(kind=words.JUPYTER)
    past.session(host="another that shares this home")
    past.session(owner="bob, who has the same account there")
    past.session(end=False)
    (tmp_path / "runs/being-made").mkdir()
    assert past.earlier() == newest


def test_one_whose_workspace_is_gone_is_passed_over(tmp_path: Path) -> None:
    past = Past(tmp_path)
    oldest, newer = past.session(), past.session()
    (tmp_path / "runs" / newer / "workspace").rmdir()
    assert past.earlier() == oldest
