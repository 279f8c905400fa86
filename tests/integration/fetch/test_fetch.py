"""What a fetch brings over real ssh and rsync, and what it never does."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpurun import fetch
from gpurun.agent.state import journal
from gpurun.commands import unfetched
from gpurun.errors import GpurunError, HostError
from gpurun.fetch import destination
from gpurun.remote import wire
from gpurun.store import run_store
from tests.integration.fetch.conftest import FetchedRun
from tests.support.hostile import NAMES
from tests.support.meddler import Meddler, an_entry
from tests.support.part import part
from tests.support.run_folder import HOST_ID


def test_any_tree_comes_back_byte_for_byte(run: FetchedRun) -> None:
    dice = random.Random(6)
    wrote = {}
    for _ in range(60):
        parts = [dice.choice(NAMES) + str(dice.randrange(9)).encode() for _ in range(dice.randint(1, 4))]
        path, content = b"/".join(parts), dice.randbytes(dice.choice([0, 1, 700, 70_000]))
        try:
            run.job.write(path, content)
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            continue
        wrote[os.fsdecode(path)] = content
    run.job.end()
    fetched = run.fetch()
    assert (fetched.left, fetched.writing) == ([], [])
    assert run.files() == wrote
    again = run.fetch()
    assert (again.placed, again.unchanged) == ([], len(wrote) + 3)


def test_what_was_fetched_is_known_to_host_and_index(run: FetchedRun) -> None:
    job = {"id": run.id, "name": "train", "created": 1.0, "project": {"name": "p", "root": "/p"}}
    run_store.add(part(job), "demo")
    run.job.write("x")
    run.fetch()
    assert not Path(run.job.paths.fetched).exists()  # it lives, and writes on
    run.job.end()
    run.fetch(only=["x"])
    assert json.loads(Path(run.job.paths.fetched).read_text())["t"] is None
    run.fetch()
    assert json.loads(Path(run.job.paths.fetched).read_text())["t"] is not None
    entry = run_store.find(run.id)
    assert entry is not None
    assert entry.fetched_to == str(run.to)


def test_a_host_that_cannot_note_it_takes_nothing_away(run: FetchedRun) -> None:
    """Its disk is full, or it went away once everything had come."""
    run_store.add(part({"id": run.id, "name": "train", "created": 1.0, "project": {"name": "p", "root": "/p"}}), "demo")
    run.job.write("x")
    run.job.end()

    def fails(told: Any) -> Any:
        raise HostError("the host's disk is full", code="disk_full")

    failing = Meddler(run.wire, {"fetched": fails})
    some = fetch.fetch_run(failing, run.id, run.to, only=["x"])  # type: ignore[arg-type]
    entry = run_store.find(run.id)
    assert entry is not None
    assert (some.unnoted, entry.fetched) == ("the host's disk is full", None)
    assert fetch.fetch_run(failing, run.id, run.to).unnoted  # type: ignore[arg-type]
    assert run_store.is_here(run.id)


def test_only_globs_pick_and_reach_into_caches(run: FetchedRun) -> None:
    for name in ("a.ckpt", "deep/b.ckpt", "c.csv", ".cache/d.ckpt", "logs/e"):
        run.job.write(name)
    run.job.end()
    run.fetch(only=["*.ckpt", "logs/"])
    assert sorted(run.files()) == [".cache/d.ckpt", "a.ckpt", "deep/b.ckpt", "logs/e"]


@pytest.mark.parametrize(
    ("only", "asks"),
    [((), True), (("*.ckpt",), False), (("**/metrics.csv", "logs/"), False), (("outside/tmp/*",), True)],
)
def test_fetch_only_does_not_search_the_container(
    run: FetchedRun, only: tuple[str, ...], asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = json.loads(Path(run.job.paths.job).read_text())
    job["host"].update(runtime="docker", engine=["docker"])
    Path(run.job.paths.job).write_text(json.dumps(job))
    run.job.write("best.ckpt", b"1")
    asked: list[bool] = []
    ask: Any = wire.Wire.ask

    def note(self: wire.Wire, verb: str, request: Any, **more: Any) -> Any:
        asked.append(verb == "outputs" and request["outside"])
        return ask(self, verb, request, **more)

    monkeypatch.setattr(wire.Wire, "ask", note)
    run.fetch(only=only)
    assert any(asked) is asks


def test_a_changed_file_replaces_the_one_fetched_before(run: FetchedRun) -> None:
    run.job.write("last.ckpt", b"epoch 1")
    run.job.end()
    run.fetch()
    run.job.write("last.ckpt", b"epoch 2")  # same size, same time
    assert [placed.at for placed in run.fetch().placed] == ["last.ckpt"]
    assert run.files() == {"last.ckpt": b"epoch 2"}
    assert run.fetch().placed == []


def test_a_file_deleted_here_comes_again(run: FetchedRun) -> None:
    run.job.write("x", b"1")
    run.job.end()
    run.fetch()
    (run.to / "x").unlink()
    run.fetch()
    assert run.files() == {"x": b"1"}


def test_files_that_are_not_from_this_run_are_never_replaced(run: FetchedRun) -> None:
    run.to.mkdir(parents=True)
    (run.to / "config.yaml").write_bytes(b"mine")
    (run.to / "same").write_bytes(b"the same")
    run.job.write("config.yaml", b"the job's")
    run.job.write("same", b"the same")
    run.job.end()
    fetched = run.fetch()
    assert run.files() == {"config.yaml": b"mine", f"config.{run.id}.yaml": b"the job's", "same": b"the same"}
    assert [placed.at for placed in fetched.beside] == [f"config.{run.id}.yaml"]
    assert run.fetch().placed == []


def test_files_of_the_host_that_it_went_on_from_are_never_replaced(run: FetchedRun) -> None:
    """Both hosts have a best.ckpt of the run, and the first one may be gone."""
    run.job.write("best.ckpt", b"of the first host")
    run.job.write("same.csv", b"1,2")
    run.fetch()
    state = run.to / ".gpurun/fetch.json"
    told = json.loads(state.read_text())
    assert told["host"] == {"name": run.wire.host, "id": HOST_ID}
    state.write_text(json.dumps({**told, "host": {"name": "former", "id": "another"}}))
    run.job.write("best.ckpt", b"of the second")
    fetched = run.fetch()
    beside = f"best.{run.id}.ckpt"
    assert run.files() == {"best.ckpt": b"of the first host", beside: b"of the second", "same.csv": b"1,2"}
    assert [placed.at for placed in fetched.beside if "_gpurun" not in placed.at] == [beside]


def test_links_come_relative_and_those_that_lead_out_are_told(run: FetchedRun) -> None:
    workspace = run.job.root / "workspace"
    run.job.write("ckpt/epoch=3.ckpt", b"w")
    (workspace / "ckpt" / "last.ckpt").symlink_to("epoch=3.ckpt")
    (workspace / "best").symlink_to("/workspace/ckpt/epoch=3.ckpt")
    (workspace / "home").symlink_to("/etc/passwd")
    run.job.end()
    fetched = run.fetch()
    assert os.readlink(run.to / "best") == "ckpt/epoch=3.ckpt"
    assert (run.to / "ckpt" / "last.ckpt").read_bytes() == b"w"
    assert [(left.path, left.lost) for left in fetched.left] == [("home", False)]
    assert fetched.whole


def test_a_host_that_lies_writes_nothing_elsewhere(run: FetchedRun, tmp_path: Path) -> None:
    run.job.write("x", b"1")
    run.job.write("env", b"SECRET", to="ro")
    lies = [
        an_entry(**{"as": "../../evil"}),
        an_entry(**{"as": str(tmp_path / "evil")}),
        an_entry(path="ro/env", **{"as": "env"}),
        an_entry(link="../../evil", **{"as": "link"}),
        an_entry(path="workspace/x/../../ro/env", **{"as": "y"}),
    ]
    lying = Meddler(run.wire, {"outputs": lambda told: {**told, "files": lies}})
    fetched = fetch.fetch_run(lying, run.id, run.to)  # type: ignore[arg-type]
    assert run.files(record=True) == {}
    assert [path for path in tmp_path.rglob("*") if path.name in ("evil", "env", "link", "y")] == []
    assert len(fetched.left) == len(lies)


def test_a_chain_of_links_does_not_lead_out(run: FetchedRun) -> None:
    """Each of them looks harmless by itself."""
    run.job.write("x", b"1")
    run.job.end()
    chain = {"chain/d1": "..", "chain/a": "d1", "chain/out": "a/..", "out": "chain/a/../.."}
    links = [an_entry(path=None, link=target, **{"as": name}) for name, target in chain.items()]
    lying = Meddler(run.wire, {"outputs": lambda told: {**told, "files": [*told["files"], *links]}})
    fetched = fetch.fetch_run(lying, run.id, run.to)  # type: ignore[arg-type]
    assert run.files()["x"] == b"1"
    assert [left.path for left in fetched.left] == ["chain/out", "out"]
    for path in run.to.rglob("*"):
        assert path.resolve().is_relative_to(run.to), path


def test_a_link_that_leads_out_over_one_of_the_users_is_taken_away_again(run: FetchedRun, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run.to.mkdir(parents=True)
    (run.to / "mine").symlink_to(tmp_path / "elsewhere")
    run.job.end()
    links = [an_entry(path=None, link="mine/secret", **{"as": "x"}), an_entry(path=None, link="x", **{"as": "y"})]
    lying = Meddler(run.wire, {"outputs": lambda told: {**told, "files": [*told["files"], *links]}})
    fetched = fetch.fetch_run(lying, run.id, run.to)  # type: ignore[arg-type]
    assert [left.path for left in fetched.left] == ["x", "y"]
    assert [path.name for path in run.to.iterdir() if path.is_symlink()] == ["mine"]


def test_a_name_that_this_disk_cannot_have_stops_no_other(run: FetchedRun) -> None:
    name = "n" * 250  # with `.train-7f3k` behind it, too long
    run.to.mkdir(parents=True)
    (run.to / name).write_bytes(b"mine")
    run.job.write(name, b"the job's")
    run.job.write("x", b"1")
    run.job.end()
    fetched = run.fetch()
    assert run.files() == {name: b"mine", "x": b"1"}
    assert [(left.path, left.why) for left in fetched.left] == [(name, "File name too long")]


def test_a_file_that_looks_like_a_secret_is_its_owners_alone(run: FetchedRun) -> None:
    for name in ("keys/server.pem", ".env", "model.bin"):
        run.job.write(name, b"s3cret").chmod(0o644)
    run.job.end()
    run.fetch()
    modes = {name: (run.to / name).stat().st_mode & 0o777 for name in ("keys/server.pem", ".env", "model.bin")}
    assert modes == {"keys/server.pem": 0o600, ".env": 0o600, "model.bin": 0o644}
    assert (run.to / ".gpurun").stat().st_mode & 0o077 == 0, "nor can others read it on its way"


def test_no_link_in_the_destination_is_followed(run: FetchedRun, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run.to.mkdir(parents=True)
    (run.to / "ckpt").symlink_to(elsewhere)
    (run.to / "x").symlink_to(elsewhere / "x")
    run.job.write("ckpt/best.ckpt")
    run.job.write("x")
    run.job.end()
    fetched = run.fetch()
    assert list(elsewhere.iterdir()) == []
    assert "link" in next(left.why for left in fetched.left if left.path == "ckpt/best.ckpt")
    assert (run.to / "x").is_symlink()
    assert (run.to / f"x.{run.id}").read_bytes() == b"x"


def test_what_arrives_damaged_is_not_taken(run: FetchedRun) -> None:
    run.job.write("good", b"1")
    run.job.write("bad", b"2")
    run.job.end()

    def another_hash(told: Any) -> Any:
        told["hashes"].get("workspace/bad", {})["sha256"] = "0" * 64
        return told

    fetched = fetch.fetch_run(Meddler(run.wire, {"hash": another_hash}), run.id, run.to)  # type: ignore[arg-type]
    assert run.files() == {"good": b"1"}
    assert [(left.path, left.why) for left in fetched.left] == [("bad", "what arrived differs from what the host has")]
    assert json.loads(Path(run.job.paths.fetched).read_text())["t"] is None
    run.fetch()
    assert run.files() == {"good": b"1", "bad": b"2"}


def test_a_disk_that_ignores_case_gets_one_of_two(run: FetchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.job.write("Model.pt", b"1")
    run.job.write("model.pt", b"22")
    run.job.end()
    monkeypatch.setattr(destination.Destination, "ignores_case", lambda self: True)
    fetched = run.fetch()
    assert run.files() == {"Model.pt": b"1"}
    assert [left.path for left in fetched.left] == ["model.pt"]


def test_a_file_that_cannot_be_read_stops_no_other(run: FetchedRun) -> None:
    run.job.write("a/x", b"1")
    run.job.write("gone", b"2")
    run.job.end()

    def one_more(told: Any) -> Any:
        told["files"].append(an_entry(path="workspace/never", **{"as": "never"}))
        return told

    fetched = fetch.fetch_run(Meddler(run.wire, {"outputs": one_more}), run.id, run.to)  # type: ignore[arg-type]
    assert run.files() == {"a/x": b"1", "gone": b"2"}
    assert (fetched.left, fetched.whole) == ([], True)  # removed meanwhile: no output any more


def known(run: FetchedRun) -> None:
    """The run as the index has it once its host has spoken of it."""
    run_store.add(part({"id": run.id, "name": "train", "created": 1.0, "project": {"name": "p", "root": "/p"}}), "demo")


def why_not_here(run: FetchedRun) -> str | None:
    (one,) = unfetched.unfetched_on(run.wire, [run.id])
    return unfetched.why_not_here(one)


def test_what_was_fetched_counts_until_the_run_is_written_to(run: FetchedRun) -> None:
    known(run)
    run.job.write("weights.ckpt", b"w" * 1000)
    run.job.end()
    assert why_not_here(run) == unfetched.NEVER
    run.fetch(only=["*.ckpt"])
    assert why_not_here(run) == unfetched.NEVER
    run.fetch()
    assert (why_not_here(run), run_store.is_here(run.id)) == (None, True)
    run.job.write("evaluation.csv", b"of 5 hours")
    assert why_not_here(run) == unfetched.CHANGED
    run.fetch()
    assert why_not_here(run) is None
    run.job.write("weights.ckpt", b"x" * 1000)  # of the same size and date
    assert why_not_here(run) == unfetched.CHANGED


@pytest.mark.parametrize("how", ["folder deleted", "file deleted", "file written to", "list deleted"])
def test_what_was_fetched_counts_only_while_all_of_it_is_here(run: FetchedRun, how: str) -> None:
    known(run)
    run.job.write("deep/weights.ckpt", b"w" * 1000)
    run.job.write("metrics.csv")
    run.job.end()
    run.fetch()
    if how == "folder deleted":
        shutil.rmtree(run.to)
    elif how == "file deleted":
        (run.to / "deep/weights.ckpt").unlink()
    elif how == "file written to":
        (run.to / "metrics.csv").write_text("mine")
    else:
        (run.to / ".gpurun/whole.json").unlink()
    assert (why_not_here(run), run_store.is_here(run.id)) == (unfetched.MISSING, False)
    if how == "folder deleted":
        run.fetch()
        assert (why_not_here(run), run_store.is_here(run.id)) == (None, True)


def test_what_another_laptop_fetched_is_not_here(run: FetchedRun) -> None:
    known(run)
    run.job.write("weights.ckpt")
    run.job.end()
    run.fetch()
    run_store.remove(run.id)  # as on a laptop that never fetched it
    known(run)
    assert why_not_here(run) == unfetched.ELSEWHERE
    run.job.write("more.ckpt")
    assert why_not_here(run) == unfetched.NEVER


def test_what_an_earlier_gpurun_fetched_is_proven_by_another_fetch(run: FetchedRun) -> None:
    known(run)
    run.job.write("weights.ckpt")
    run.job.end()
    run.fetch()
    run_store.change(run.id, lambda entry: replace(entry, verified={}))  # as one wrote it that knew no stamps
    assert why_not_here(run) == unfetched.UNPROVEN
    run.fetch()
    assert why_not_here(run) is None


def test_run_that_wrote_nothing_is_removed_without_a_question(run: FetchedRun) -> None:
    known(run)
    run.job.submit("train.py", b"code")
    run.job.end()
    assert why_not_here(run) is None


def test_files_that_came_beside_others_are_looked_for_where_they_are(run: FetchedRun) -> None:
    known(run)
    run.to.mkdir(parents=True)
    (run.to / "config.yaml").write_text("mine, of another size")
    run.job.write("config.yaml", b"theirs")
    run.job.end()
    run.fetch()
    assert why_not_here(run) is None
    (run.to / "config.yaml").unlink()
    assert why_not_here(run) is None
    (run.to / f"config.{run.id}.yaml").unlink()
    assert why_not_here(run) == unfetched.MISSING


def test_what_an_earlier_attempt_wrote_counts_though_the_last_one_never_started(run: FetchedRun) -> None:
    known(run)
    run.job.write("weights.ckpt")
    run.job.end()
    journal.record(run.job.paths, "attempt", number=2, why="resume", checkpoint=None, ticket=None, gpus=None)
    Path(run.job.paths.exit).unlink()
    journal.record_end(run.job.paths, "stopped", "stop", message="stopped before the job was started")
    assert why_not_here(run) == unfetched.NEVER


def test_notes_of_a_newer_gpurun_are_left_as_they_are(run: FetchedRun) -> None:
    run.job.write("model.ckpt", b"weights")
    run.job.end()
    run.fetch()
    note = run.to / ".gpurun/fetch.json"
    told = {**json.loads(note.read_bytes()), "schema": 2, "files": ["another shape"]}
    note.write_text(json.dumps(told))
    with pytest.raises(GpurunError, match="a newer gpurun fetched into this folder") as refused:
        run.fetch()
    assert refused.value.where == str(note)
    assert json.loads(note.read_bytes()) == told
