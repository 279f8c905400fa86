"""Data to a host, over real ssh and rsync."""

from __future__ import annotations

import os
import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpurun.commands.data import find, ls, rm
from gpurun.commands.push import push, survey
from gpurun.config import hosts
from gpurun.config.hosts import HostProfile
from gpurun.errors import GpurunError
from gpurun.events import Event, Moved, ignore
from gpurun.remote import wire
from gpurun.remote.wire import Wire
from tests.support.hostile import NAMES
from tests.support.slow_line import slow_line

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


@pytest.fixture
def data(embedded_host: EmbeddedHost) -> Path:
    """The host's data folders."""
    return embedded_host.home / ".gpurun" / "data"


@pytest.fixture
def laptop(embedded_host: EmbeddedHost, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("GPURUN_SSH", shlex.join(embedded_host.ssh_command))
    made = wire.connect(HostProfile(embedded_host.alias), interactive=False)
    yield made
    made.connection.close()


def test_a_tree_arrives_byte_for_byte_and_the_profile_knows_it(laptop: Wire, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in NAMES:
        path = folder / os.fsdecode(name) / os.fsdecode(name)
        path.parent.mkdir(parents=True)
        path.write_bytes(name)
    (folder / "empty").mkdir()
    tree = survey(folder)
    assert (tree.files, tree.bytes) == (len(NAMES), sum(map(len, NAMES)))
    assert push(laptop, "demo", folder, "names", tree, report=ignore).added
    there = data / "names"
    assert {path.relative_to(there) for path in there.rglob("*")} == {
        path.relative_to(folder) for path in folder.rglob("*")
    }
    assert all((there / path.relative_to(folder)).read_bytes() == path.read_bytes() for path in folder.glob("*/*"))
    assert hosts.read().get("demo").data == {"names": str(there)}
    assert not push(laptop, "demo", folder, "names", tree, report=ignore).added


def test_nothing_is_deleted_and_what_changed_within_a_second_is_sent(laptop: Wire, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    os.utime(folder / "a", ns=(0, 10**9))
    push(laptop, "demo", folder, "kept", survey(folder), report=ignore)
    (data / "kept" / "mine").write_bytes(b"made on the host")
    (folder / "a").write_bytes(b"2")
    os.utime(folder / "a", ns=(0, 10**9 + 1000))
    push(laptop, "demo", folder, "kept", survey(folder), report=ignore)
    assert {path.name: path.read_bytes() for path in (data / "kept").iterdir()} == {
        "a": b"2",
        "mine": b"made on the host",
    }


def test_push_of_what_is_there_already_says_that_nothing_is_new(laptop: Wire, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    assert push(laptop, "demo", folder, "again", survey(folder), report=ignore).anything_new
    assert not push(laptop, "demo", folder, "again", survey(folder), report=ignore).anything_new


def test_push_is_noted_as_complete_only_when_it_is(laptop: Wire, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a").write_bytes(b"12345")
    push(laptop, "demo", folder, "whole", survey(folder), report=ignore)
    laptop.ask("data", {"name": "broken"})  # a push that was killed after its first question
    host = hosts.read().get("demo")
    known = {each.name: each for each in ls(laptop, host)}
    assert not known["whole"].incomplete
    assert (known["whole"].bytes, known["whole"].files, known["whole"].path) == (5, 1, str(data / "whole"))
    assert known["broken"].incomplete
    removed = rm(laptop, host, find(list(known.values()), "whole", "demo"))
    assert (removed.freed, removed.left) == (5, ())
    assert not (data / "whole").exists()
    assert hosts.read().get("demo").data == {}
    assert "whole" not in {each.name for each in ls(laptop, hosts.read().get("demo"))}


def test_links_inside_travel_and_those_that_lead_out_are_named(laptop: Wire, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    (folder / "real").write_bytes(b"1")
    (folder / "deep" / "inside").symlink_to("../real")
    (folder / "out").symlink_to("../../etc")
    (folder / "root").symlink_to("/")
    tree = survey(folder)
    assert sorted(tree.outward) == ["out", "root"]
    push(laptop, "demo", folder, "links", tree, report=ignore)
    assert sorted(path.name for path in (data / "links").rglob("*")) == ["deep", "inside", "real"]


def test_a_push_goes_on_when_the_line_breaks(
    laptop: Wire, embedded_host: EmbeddedHost, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    content = random.Random(3).randbytes(50_000_000)
    (folder / "big").write_bytes(content)
    broke: list[int] = []
    with slow_line(embedded_host, tmp_path) as (proxy, ssh):
        monkeypatch.setenv("GPURUN_SSH", ssh)

        def report(event: Event) -> None:
            if isinstance(event, Moved) and event.done > 5_000_000 and not broke:
                broke.append(event.done)
                proxy.reset()

        push(laptop, "demo", folder, "big", survey(folder), report=report)
        laptop.connection.close()
        assert broke
        assert sum(each.up for each in proxy.traffic) < 1.9 * len(content)
    assert (data / "big" / "big").read_bytes() == content
    assert [path.name for path in (data / "big").iterdir()] == ["big"]


def test_a_bad_name_is_refused_by_the_host(laptop: Wire, tmp_path: Path) -> None:
    with pytest.raises(GpurunError, match="not a valid name for a data folder"):
        push(laptop, "demo", tmp_path, "../x", survey(tmp_path), report=ignore)
