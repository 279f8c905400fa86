"""What is told of data folders, and which of them are removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.paths import HostPaths
from gpurun.agent.verbs import data, data_folders
from tests.support.run_folder import RUN, RunFolder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostPaths:
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("GPURUN_LOCKS", str(tmp_path / "locks"))
    return HostPaths(str(tmp_path / "host"))


def filled(host: HostPaths, name: str) -> Path:
    folder = Path(data.answer({"name": name}, host)["path"])
    (folder / "deep").mkdir()
    (folder / "one").write_bytes(b"1234")
    (folder / "deep" / "two").write_bytes(b"123456")
    return folder


def listed(host: HostPaths) -> dict[str, Any]:
    return {each["name"]: each for each in data_folders.answer({}, host)["folders"]}


def mount(source: Path) -> dict[str, Any]:
    return {"name": "sets", "source": str(source), "target": "/data/sets", "readonly": True}


def test_data_folders_lists_size_files_and_pushes(host: HostPaths) -> None:
    assert listed(host) == {}
    folder = filled(host, "sets")
    told = listed(host)["sets"]
    assert (told["path"], told["bytes"], told["files"], told["counted"]) == (str(folder), 10, 2, True)
    assert told["began"] is not None
    assert told["pushed"] is None
    data.answer({"name": "sets", "pushed": True}, host)
    assert listed(host)["sets"]["pushed"] >= told["began"]


def test_data_folders_says_when_there_was_no_time_to_count(host: HostPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(host, "sets")
    monkeypatch.setattr(data_folders, "COUNT_WITHIN", -1.0)
    assert listed(host)["sets"]["counted"] is False


@pytest.mark.parametrize("uses", ["mount", "mount of a folder inside", "mount of a folder around", "own", "unreadable"])
def test_data_folders_of_a_live_run_are_not_removed(host: HostPaths, uses: str) -> None:
    folder = filled(host, "sets")
    places = {"mount": folder, "mount of a folder inside": folder / "deep", "mount of a folder around": folder.parent}
    job: dict[str, Any] = {"mounts": [mount(places[uses])]} if uses in places else {}
    run = RunFolder(Path(host.root), project={"name": "sets"} if uses == "own" else {}, **job)
    if uses == "unreadable":
        Path(run.paths.job).write_text("{")
    assert listed(host)["sets"]["used_by"] == [RUN]
    with pytest.raises(AgentError, match=RUN) as error:
        data_folders.answer({"remove": "sets"}, host)
    assert RUN in error.value.next_step
    assert (folder / "one").read_bytes() == b"1234"
    if uses == "unreadable":
        return
    run.end()
    assert listed(host)["sets"]["used_by"] == []
    done = data_folders.answer({"remove": "sets"}, host)
    assert (done["freed"], done["left"], done["folders"]) == (10, [], [])
    assert not folder.exists()


def test_data_folders_leaves_alone_what_a_link_leads_to(host: HostPaths, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    Path(host.data("")).mkdir(parents=True)
    Path(host.data("sets")).symlink_to(tmp_path / "elsewhere")
    data_folders.answer({"remove": "sets"}, host)
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert not Path(host.data("sets")).is_symlink()


@pytest.mark.parametrize("name", ["..", "../runs", "", "nope", "a/b"])
def test_data_folders_removes_nothing_by_another_name(host: HostPaths, name: str) -> None:
    folder = filled(host, "sets")
    with pytest.raises(AgentError, match="the host has no data folder"):
        data_folders.answer({"remove": name}, host)
    assert folder.exists()
