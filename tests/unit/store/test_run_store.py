"""The laptop's index of runs, and what a word on the command line means in it."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from gpurun import locked
from gpurun.agent import vocabulary as words
from gpurun.cli import complete
from gpurun.config.project import Files, Project
from gpurun.errors import UsageError
from gpurun.store import run_names, run_store
from tests.support.part import part

pytestmark = pytest.mark.usefixtures("home")


def job(run: str, *, name: str = "train", root: str = "/home/ada/vision", created: float = 1.0) -> Any:
    return {
        "id": run,
        "name": name,
        "created": created,
        "project": {"name": Path(root).name, "root": root},
        "git": {"commit": "c0ffee", "branch": "main", "dirty": True, "patch": "diff --git caf\udce9"},
    }


def record(run: str, state: str = "running", **more: Any) -> Any:
    return {"id": run, "name": "train", "project": "vision", "created": 1.0, "state": state, "host_id": "h1", **more}


def project(root: str = "/home/ada/vision") -> Project:
    return Project(Path(root), Path(root).name, "git", True, Files(Path(root)))


def test_a_run_is_found_again() -> None:
    added = run_store.add(job("train-7f3k"), "box")
    assert run_store.find("train-7f3k") == added
    assert (added.host, added.state, added.ended) == ("box", "created", False)
    assert (run_store.folder() / "train-7f3k.json").stat().st_mode & 0o77 == 0


def test_the_patch_lies_beside_the_entry() -> None:
    entry = run_store.add(job("train-7f3k"), "box")
    assert entry.job is not None
    git = entry.job["git"]
    assert git is not None
    assert (git["patch"], git["commit"]) == (None, "c0ffee")
    assert run_store.patch("train-7f3k") == b"diff --git caf\xe9"
    assert run_store.patch("other-7f3k") is None
    run_store.remove("train-7f3k")
    assert list(run_store.folder().iterdir()) == []


def test_what_a_host_answers_is_kept_with_its_time() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k"), record("other-2222", "succeeded", fetched=7.0)], "box", now=100.0)
    mine, other = run_store.find("train-7f3k"), run_store.find("other-2222")
    assert mine is not None
    assert other is not None
    assert (mine.state, mine.seen, mine.host_id, mine.project_root) == ("running", 100.0, "h1", "/home/ada/vision")
    assert (other.ended, other.fetched, other.project_root, other.job) == (True, None, None, None), (
        "what another laptop fetched is not here"
    )


def test_an_end_that_is_known_is_not_written_again() -> None:
    run_store.update([record("train-7f3k", "failed")], "box", now=100.0)
    run_store.update([record("train-7f3k", "failed")], "box", now=200.0)
    run_store.update([record("live-7f3k", "running")], "box", now=100.0)
    run_store.update([record("live-7f3k", "running")], "box", now=200.0)
    assert [(entry.id, entry.seen) for entry in run_store.all_runs()] == [("train-7f3k", 100.0), ("live-7f3k", 200.0)]


def test_a_host_that_got_another_name_takes_its_runs_along() -> None:
    run_store.update([record("train-7f3k", "failed")], "old")
    run_store.update([record("train-7f3k", "failed")], "new")
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert entry.host == "new"


def test_fetched_is_marked_and_stays() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.mark_fetched("train-7f3k", "/here/fetched", now=5.0)
    run_store.update([record("train-7f3k", "succeeded")], "box")
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert (entry.fetched, entry.fetched_to) == (5.0, "/here/fetched")
    run_store.mark_fetched("unknown-7f3k", "/here")


def three() -> None:
    run_store.add(job("train-7f3k", created=1.0), "box")
    run_store.add(job("train-7abc", created=3.0), "box")
    run_store.add(job("resnet-7f3k", name="resnet 50", root="/home/ada/other", created=2.0), "box")


@pytest.mark.parametrize(
    ("word", "run"),
    [
        ("train-7f3k", "train-7f3k"),
        ("train-7f", "train-7f3k"),
        ("r", "resnet-7f3k"),
        ("resnet 5", "resnet-7f3k"),
        (None, "train-7abc"),
    ],
)
def test_words_that_mean_one_run(word: str | None, run: str) -> None:
    three()
    assert run_names.resolve(word, project()).id == run


def test_a_whole_name_wins_over_longer_ones() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.add(job("train-big-7f3k", name="train-big"), "box")
    assert run_names.resolve("train").id == "train-7f3k"
    with pytest.raises(UsageError, match="may mean any of"):
        run_names.resolve("trai")


def test_a_word_that_means_several_lists_them() -> None:
    three()
    with pytest.raises(UsageError) as error:
        run_names.resolve("train")
    assert "train-7f3k  created  box  vision" in error.value.what
    assert "train-7abc" in error.value.what
    assert error.value.exit_code == 2


def test_word_that_means_several_means_the_live_one_where_only_that_can_be_meant() -> None:
    three()
    run_store.update([record("train-7f3k", "stopped"), record("train-7abc", "running")], "box")
    assert run_names.resolve("train", live=True).id == "train-7abc"
    with pytest.raises(UsageError, match="may mean any of"):
        run_names.resolve("train")


def test_a_word_that_means_none_names_what_is_near() -> None:
    three()
    with pytest.raises(UsageError, match="did you mean train-7f3k"):
        run_names.resolve("train-7f3j")
    with pytest.raises(UsageError, match=r"no run '\.\./\.\./etc/passwd' is known here$"):
        run_names.resolve("../../etc/passwd")


def test_no_word_and_no_run_of_the_project() -> None:
    three()
    with pytest.raises(UsageError, match="no run of the project empty"):
        run_names.resolve(None, project("/home/ada/empty"))
    with pytest.raises(UsageError, match="no run was named"):
        run_names.resolve(None)


def test_no_run_of_a_subfolder_names_the_project_above_that_has_some() -> None:
    three()
    with pytest.raises(UsageError, match="no run of the project models") as error:
        run_names.resolve(None, project("/home/ada/vision/src/models"))
    assert error.value.next_step.startswith("cd /home/ada/vision: 2 runs of vision are known there")
    assert run_names.in_a_folder_above(project("/home/ada/visionary/models")) == ""


def test_live_runs_of_a_project_and_its_services_apart() -> None:
    three()
    run_store.update([record("train-7f3k", "succeeded")], "box")
    run_store.add(part({**job("jupyter-7f3k"), "service": {"kind": "jupyter"}}), "box")
    jobs, services = run_names.of_project("/home/ada/vision")
    assert [entry.id for entry in jobs if run_names.is_live(entry)] == ["train-7abc"]
    assert [entry.id for entry in services] == ["jupyter-7f3k"]


def test_service_is_meant_only_when_it_is_named() -> None:
    run_store.add(part({**job("jupyter-7f3k"), "service": {"kind": "jupyter"}}), "box")
    with pytest.raises(UsageError) as refused:
        run_names.resolve(None, project("/home/ada/vision"))
    assert "jupyter-7f3k" in refused.value.next_step
    run_store.add(job("train-7f3k"), "box")
    run_store.add(part({**job("jupyter-9abc"), "created": 2e9, "service": {"kind": "jupyter"}}), "box")
    assert run_names.resolve(None, project("/home/ada/vision")).id == "train-7f3k"
    assert run_names.resolve("jupyter-9", project("/home/ada/vision")).id == "jupyter-9abc"


@pytest.mark.parametrize("state", ["running", "queued", "unknown"])
def test_end_stays_an_end_when_an_older_answer_arrives_behind_it(state: str) -> None:
    run_store.update([record("train-7f3k", "failed", attempt=2)], "box")
    run_store.update([record("train-7f3k", state, attempt=2, here=False)], "box")
    assert run_names.resolve("train-7f3k").state == "failed"
    run_store.update([record("train-7f3k", state, attempt=3, here=False)], "box")
    assert run_names.resolve("train-7f3k").state == state


def test_run_whose_upload_broke_off_is_live_again_when_it_is_sent_once_more() -> None:
    run_store.update([record("train-7f3k", "failed", reason="sync")], "box")
    run_store.update([record("train-7f3k", "queued")], "box")
    assert run_names.resolve("train-7f3k").state == "queued"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"id": "bad-2222"}', b"\xff\x00"])
def test_a_damaged_file_is_passed_over(content: bytes) -> None:
    three()
    (run_store.folder() / "bad-2222.json").write_bytes(content)
    assert len(run_store.all_runs()) == 3
    assert run_store.find("bad-2222") is None
    run_store.update([record("bad-2222")], "box")
    assert len(run_store.all_runs()) == 4


def test_fields_of_a_later_version_do_no_harm() -> None:
    run_store.add(job("train-7f3k"), "box")
    file = run_store.folder() / "train-7f3k.json"
    file.write_text(file.read_text().replace('"id"', '"invented_later": 1, "id"', 1))
    assert run_store.find("train-7f3k") is not None


def test_run_that_goes_on_on_another_host_is_that_ones() -> None:
    """What the old host says of it, now or when it is back, changes nothing; what the new one says before does not either."""
    run_store.add(job("train-7f3k"), "box", part({"digest": "d"}))
    run_store.update([record("train-7f3k", "failed")], "box")
    run_store.update([record("train-7f3k", "syncing", host_id="h2", attempt=1)], "spare")
    assert (run_names.resolve("train-7f3k").host, run_names.resolve("train-7f3k").state) == ("box", "failed")
    run_store.update([record("train-7f3k", host_id="h2", attempt=2)], "spare")
    run_store.update([record("train-7f3k", "failed", attempt=1)], "box")
    entry = run_names.resolve("train-7f3k")
    assert (entry.host, entry.state, entry.host_id, entry.manifest) == ("spare", "running", "h2", part({"digest": "d"}))
    run_store.update([record("train-7f3k", "failed", host_id="h2", attempt=2)], "spare-by-another-name")
    assert run_names.resolve("train-7f3k").host == "spare-by-another-name"


def test_what_was_fetched_of_an_earlier_attempt_is_not_all() -> None:
    run_store.update([record("train-7f3k", "failed", fetched=5.0)], "box")
    run_store.mark_fetched("train-7f3k", "/home/ada/vision/fetched/train-7f3k", now=6.0)
    run_store.update([record("train-7f3k", "failed", attempt=2)], "box")
    entry = run_names.resolve("train-7f3k")
    assert (entry.fetched, entry.fetched_to) == (None, "/home/ada/vision/fetched/train-7f3k")


def test_what_was_left_on_another_host_counts_for_what_is_here(tmp_path: Path) -> None:
    for host_id, host, attempt in (("h1", "box", 1), ("h2", "spare", 2)):
        run_store.update([record("train-7f3k", "failed", host_id=host_id, attempt=attempt)], host)
    run_store.note_left("train-7f3k", "box", fetched=False)
    run_store.mark_fetched("train-7f3k", str(tmp_path))
    assert not run_store.is_here("train-7f3k")
    run_store.note_left("train-7f3k", "box", fetched=True)
    assert run_store.is_here("train-7f3k")
    run_store.mark_fetched("train-7f3k", str(tmp_path), host="box", stamp="a.b")
    assert not run_store.is_here("train-7f3k", "box"), "no list of files says that they are here"
    run_store.note_moved("train-7f3k", str(tmp_path), "/elsewhere")
    assert run_names.resolve("train-7f3k").verified == {"box": {"stamp": "a.b", "to": "/elsewhere"}}
    run_store.note_left("train-7f3k", "spare", fetched=False)  # it came back there
    assert run_names.resolve("train-7f3k").left_on == {"box": True}


def test_host_that_tells_of_a_later_attempt_has_the_run_and_the_former_one_is_not_forgotten() -> None:
    """Nobody told this laptop: the run was resumed from another one, or the answer never came."""
    run_store.update([record("train-7f3k", "failed", attempt=1)], "box")
    run_store.update([record("train-7f3k", "succeeded", host_id="h2", attempt=2)], "other")
    entry = run_names.resolve("train-7f3k")
    assert (entry.host, entry.left_on) == ("other", {"box": False})


def on_two_hosts(state_there: str = "running") -> run_store.RunEntry:
    """The run went on on `spare`; `box` was not asked."""
    run_store.update([record("train-7f3k", "running", attempt=1)], "box")
    run_store.update([record("train-7f3k", "failed", host_id="h2", attempt=2)], "spare")
    run_store.update([record("train-7f3k", state_there, attempt=1)], "box")
    return run_names.resolve("train-7f3k")


def test_index_told_of_a_live_attempt_on_a_former_host_keeps_it_beside_the_run() -> None:
    entry = on_two_hosts()
    assert (entry.host, entry.state) == ("spare", "failed")
    assert {host: told["attempt"] for host, told in entry.twins.items()} == {"box": 1}
    assert run_names.is_live(entry)
    run_store.update([record("train-7f3k", "stopped", attempt=1)], "box")
    entry = run_names.resolve("train-7f3k")
    assert (entry.twins, run_names.is_live(entry)) == ({}, False)
    assert {host: told["state"] for host, told in entry.ended_on.items()} == {"box": "stopped"}
    run_store.note_gone("train-7f3k", "box")
    assert run_names.resolve("train-7f3k").ended_on == {}


def test_attempt_that_ended_before_the_run_went_on_is_not_one_that_was_left_behind() -> None:
    run_store.update([record("train-7f3k", "failed", attempt=1)], "box")
    run_store.note_begun(record("train-7f3k", "running", host_id="h2", attempt=2), "spare", fetched=False)
    run_store.update([record("train-7f3k", "failed", attempt=1)], "box")
    entry = run_names.resolve("train-7f3k")
    assert (entry.twins, entry.ended_on) == ({}, {})


def test_index_told_of_what_only_arrives_on_another_host_has_no_twin() -> None:
    assert on_two_hosts("syncing").twins == {}


def test_index_told_of_one_machine_under_two_names_has_one_twin() -> None:
    on_two_hosts()
    run_store.update([record("train-7f3k", "running", attempt=1)], "box-vpn")
    assert list(run_names.resolve("train-7f3k").twins) == ["box-vpn"]


def test_run_that_was_live_where_it_was_when_another_host_tells_of_it_may_be_live_there_still() -> None:
    """That host made attempts of its own meanwhile: the one that has more of them does not hide the other."""
    run_store.update([record("train-7f3k", "running", attempt=2)], "box")
    run_store.update([record("train-7f3k", "running", host_id="h2", attempt=3)], "spare")
    entry = run_names.resolve("train-7f3k")
    assert (entry.host, list(entry.twins)) == ("spare", ["box"])
    run_store.note_gone("train-7f3k", "box")
    assert run_names.resolve("train-7f3k").twins == {}


def test_index_told_of_another_run_of_the_same_id_leaves_its_own_as_it_is() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k", "running")], "box")
    before = run_names.resolve("train-7f3k")
    run_store.update([record("train-7f3k", "failed", host_id="h2", attempt=2, created=5.0)], "spare")
    assert run_names.resolve("train-7f3k") == before


def test_beginning_elsewhere_is_noted_in_one_write_with_what_was_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    run_store.update([record("train-7f3k", "failed")], "box")
    run_store.note_maybe("train-7f3k", "spare", "ask1")
    writes: list[run_store.RunEntry] = []
    real = run_store._write

    def write(entry: run_store.RunEntry) -> None:
        writes.append(entry)
        real(entry)

    monkeypatch.setattr(run_store, "_write", write)
    run_store.note_begun(record("train-7f3k", host_id="h2", attempt=2), "spare", fetched=False)
    assert len(writes) == 1
    entry = run_names.resolve("train-7f3k")
    assert (entry.host, entry.maybe_on, entry.move, entry.left_on) == ("spare", None, None, {"box": False})


def test_host_that_tells_of_what_was_undecided_there_decides_it() -> None:
    run_store.update([record("train-7f3k", "failed")], "box")
    run_store.note_maybe("train-7f3k", "spare", "ask1")
    run_store.update([record("train-7f3k", "syncing", host_id="h2")], "spare")
    assert run_names.resolve("train-7f3k").maybe_on == "spare"
    run_store.update([record("train-7f3k", host_id="h2", attempt=2)], "spare")
    assert (run_names.resolve("train-7f3k").host, run_names.resolve("train-7f3k").maybe_on) == ("spare", None)


def test_move_that_was_settled_leaves_a_later_one_undecided() -> None:
    run_store.update([record("train-7f3k", "failed")], "box")
    run_store.note_maybe("train-7f3k", "spare", "ask2")
    run_store.note_settled("train-7f3k", "ask1")
    assert run_names.resolve("train-7f3k").move == "ask2"
    run_store.note_settled("train-7f3k", "ask2")
    assert (run_names.resolve("train-7f3k").maybe_on, run_names.resolve("train-7f3k").move) == (None, None)


def test_submit_that_is_repeated_keeps_what_is_known_of_its_run() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k")], "box")
    again = run_store.add(job("train-7f3k"), "box")
    assert (again.state, again.host_id) == ("running", "h1")


def test_id_of_a_run_that_is_or_was_known_is_taken() -> None:
    run_store.add(job("train-7f3k"), "box")
    (run_store.folder() / "train-7abc.ledger").write_text("{}")
    assert [run_store.is_taken(run) for run in ("train-7f3k", "train-7abc", "train-2222")] == [True, True, False]


def test_index_entry_of_a_newer_gpurun_is_shown_and_never_written() -> None:
    run_store.folder().mkdir(parents=True)
    file = run_store.folder() / "train-7f3k.json"
    told = {"schema": words.STORE_SCHEMA + 1, "id": "train-7f3k", "hosts": ["box"], "record": {"state": "parked"}}
    file.write_text(json.dumps(told))
    (entry,) = run_store.all_runs()
    assert (entry.id, entry.newer, entry.ended) == ("train-7f3k", True, False)
    run_store.update([record("train-7f3k", "failed")], "box")
    run_store.mark_fetched("train-7f3k", "/tmp/fetched")
    run_store.note_maybe("train-7f3k", "box", "ask1")
    assert json.loads(file.read_text()) == told


def test_index_field_that_is_not_known_stays() -> None:
    run_store.add(job("train-7f3k"), "box")
    file = run_store.folder() / "train-7f3k.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pinned": True}))
    run_store.update([record("train-7f3k", "failed")], "box")
    told = json.loads(file.read_text())
    assert (told["pinned"], told["record"]["state"], told["schema"]) == (True, "failed", words.STORE_SCHEMA)


@pytest.mark.parametrize(("live", "ended"), [(False, True), (True, False)])
def test_index_state_that_is_not_known_has_ended_if_its_host_says_so(live: bool, ended: bool) -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k", "preempted", live=live)], "box")
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert (entry.state, entry.ended) == ("preempted", ended)


def test_index_record_of_a_run_that_its_host_cannot_read_changes_nothing() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k", "running")], "box")
    unread = {**record("train-7f3k", words.UNKNOWN), "created": None, "live": False, "problem": "it cannot be read"}
    run_store.update([part(unread), part({**unread, "id": "other-2222"})], "box")
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert entry.state == "running"
    assert run_store.find("other-2222") is None


def test_run_whose_host_does_not_know_when_it_was_submitted_gets_an_entry() -> None:
    run_store.update([record("train-7f3k", created=None, project=None)], "box")
    found = run_store.find("train-7f3k")
    assert found is not None
    assert (found.state, found.created) == ("running", 0.0)


def test_a_run_that_another_host_only_lists_stays_where_it_is() -> None:
    """They share a home, or the disk of one was cloned."""
    run_store.update([record("train-7f3k")], "box", now=5.0)
    run_store.update([record("train-7f3k", "unknown", here=False)], "node", now=6.0)
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert (entry.host, entry.state, entry.seen) == ("box", "running", 5.0)


def test_a_run_whose_host_does_not_know_it_any_more_is_unknown() -> None:
    run_store.update([record("train-7f3k")], "box")
    run_store.update([record("train-7f3k", "unknown", here=False)], "box")
    assert run_names.resolve("train-7f3k").state == "unknown"


def test_removed_run_is_listed_no_more_and_stays_known() -> None:
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k", "succeeded", exit_code=0)], "box")
    run_store.note_removed("train-7f3k", now=9.0)
    assert (run_store.find("train-7f3k"), run_store.all_runs()) == (None, [])
    (gone,) = run_store.removed_runs()
    assert (gone.id, gone.removed, gone.state, gone.host) == ("train-7f3k", 9.0, "succeeded", "box")
    assert run_store.find_removed("train-7f3k") == gone
    assert run_store.patch("train-7f3k") is not None
    assert run_store.is_taken("train-7f3k")


def test_removed_run_that_its_host_tells_of_again_is_listed_again() -> None:
    """It was removed from another host, or the host came back from a backup."""
    run_store.add(job("train-7f3k"), "box")
    run_store.update([record("train-7f3k", "succeeded", attempt=2)], "box")
    run_store.note_removed("train-7f3k")
    run_store.update([record("train-7f3k", "failed", attempt=1, host_id="h2")], "spare")
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert (entry.host, entry.state, entry.removed) == ("spare", "failed", None)
    assert entry.job is not None
    assert run_store.removed_runs() == []


def test_removed_runs_are_counted_without_reading_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ps -a` counts them each time, and there may be thousands."""
    for run in ("a-2222", "b-2222", "c-2222"):
        run_store.add(job(run), "box")
        run_store.note_removed(run)
    run_store.update([record("c-2222")], "box")  # listed again
    assert len(run_store.removed_runs()) == 2
    monkeypatch.setattr(run_store, "_parsed", lambda path: pytest.fail(f"{path} was read"))
    assert run_store.count_removed() == 2


def test_host_that_was_left_keeps_its_runs_known() -> None:
    run_store.update([record("train-7f3k", "succeeded")], "box")
    run_store.forget_on("train-7f3k", "box")
    assert [entry.id for entry in run_store.removed_runs()] == ["train-7f3k"]


def test_index_entry_that_the_disk_does_not_give_is_not_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    run_store.add(job("train-7f3k"), "box", part({"digest": "c0ffee"}))
    read = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.name == "train-7f3k.json":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "read_bytes", fails)
        run_store.update([record("train-7f3k")], "box")
        assert locked.trouble() is not None
        with pytest.raises(OSError, match="Input/output"):
            run_store.note_maybe("train-7f3k", "other")
        with pytest.raises(OSError, match="Input/output"):
            run_store.add(job("train-7f3k"), "other")
    entry = run_store.find("train-7f3k")
    assert entry is not None
    assert (entry.manifest, entry.host) == (part({"digest": "c0ffee"}), "box")


def test_removed_run_is_completed_where_no_host_is_needed() -> None:
    for run in ("train-7f3k", "train-9abc"):
        run_store.update([record(run, "succeeded")], "box")
    run_store.note_removed("train-7f3k")
    assert [run for run, _ in complete.runs("tr")] == ["train-9abc"]
    assert complete.known_runs("train-7") == [("train-7f3k", "vision, removed from box")]
