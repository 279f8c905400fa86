"""The ledgers of checkpoints as this laptop keeps them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gpurun.commands import runs
from gpurun.errors import UsageError
from gpurun.store import checkpoint_store, run_store
from tests.support.part import part

RUN = "train-7f3k"


def sha(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def line(path: str, content: str = "a", **told: Any) -> Any:
    return {"path": path, "sha256": sha(content), "size": len(content), "complete": True, "attempt": 1, **told}


def record(run: str = RUN, **more: Any) -> Any:
    git = {"commit": "c0ffee", "branch": "main", "dirty": False}
    known = {"id": run, "name": "train", "project": "vision", "created": 1.0, "state": "running", "git": git}
    return {**known, "command": ["python", "train.py"], **more}


def answer(*lines: Any, begin: int = 0, end: int = 100, host: str = "h1", run: str = RUN) -> Any:
    return {"ledgers": {run: {"host_id": host, "from": begin, "to": end, "lines": list(lines)}}}


def told_by(told: Any, host: str = "box") -> None:
    checkpoint_store.update(told, host)


@pytest.fixture(autouse=True)
def _known(home: Path) -> None:
    run_store.update([record()], "box")


def told() -> list[tuple[str, bool]]:
    return [(entry["path"], entry["gone"]) for entry in checkpoint_store.of(RUN).entries]


def test_it_says_how_far_it_has_read_and_takes_the_rest() -> None:
    assert checkpoint_store.question([RUN]) == {"ledgers": {}}
    told_by(answer(line("a.ckpt", "a")))
    assert checkpoint_store.question([RUN]) == {"ledgers": {RUN: {"h1": 100}}}
    told_by(answer(line("b.ckpt", "b"), begin=100, end=150))
    assert told() == [("a.ckpt", False), ("b.ckpt", False)]
    told_by(answer(line("c.ckpt", "c"), host="h2"), "spare")
    assert checkpoint_store.question([RUN]) == {"ledgers": {RUN: {"h1": 150, "h2": 100}}}


def test_a_part_behind_a_gap_waits_for_the_next_contact() -> None:
    told_by(answer(line("b.ckpt"), begin=100, end=150))
    assert (told(), checkpoint_store.question([RUN])) == ([], {"ledgers": {}})


def test_a_part_that_comes_twice_changes_nothing() -> None:
    for _ in range(2):
        told_by(answer(line("a.ckpt"), line("b.ckpt", "b")))
    assert told() == [("a.ckpt", False), ("b.ckpt", False)]


def test_what_was_replaced_or_removed_is_still_known_by_its_content() -> None:
    old, new = line("last.ckpt", "old", step=1), line("last.ckpt", "new", step=2)
    told_by(answer(old, new, line("a.ckpt"), {"path": "a.ckpt", "removed": True}))
    assert told() == [("last.ckpt", True), ("last.ckpt", False), ("a.ckpt", True)]
    assert [entry["step"] for entry in checkpoint_store.there(RUN)] == [2]
    assert [(run, entry["step"]) for run, _, entry in checkpoint_store.find(sha("old"))] == [(RUN, 1)]
    assert checkpoint_store.find(sha("never")) == []


def test_the_newest_line_of_a_checkpoint_holds() -> None:
    told_by(answer(line("a.ckpt", best=True, value=0.5, mode="min"), line("a.ckpt", best=False)))
    assert checkpoint_store.best(RUN) is None
    told_by(answer(line("a.ckpt", best=True), begin=100, end=200))
    assert [entry["best"] for entry in checkpoint_store.of(RUN).entries] == [True]


def test_what_is_there_comes_before_what_is_gone_and_the_best_first() -> None:
    both = (line("z.ckpt", best=True), line("last.ckpt"), line("b.ckpt"), {"path": "b.ckpt", "removed": True})
    told_by(answer(*both))
    assert [entry["path"] for _, _, entry in checkpoint_store.find(sha("a"))] == ["z.ckpt", "last.ckpt", "b.ckpt"]


def test_the_same_path_on_two_hosts_is_two_checkpoints() -> None:
    told_by(answer(line("best.ckpt", "a", best=True, step=10)))
    told_by(answer(line("best.ckpt", "b", step=20), line("x.ckpt", "x"), host="h2"), "spare")
    told_by(answer({"path": "x.ckpt", "removed": True}, begin=100, end=150))
    assert [(entry["host"], entry["path"]) for entry in checkpoint_store.there(RUN)] == [
        ("box", "best.ckpt"),
        ("spare", "best.ckpt"),
        ("spare", "x.ckpt"),
    ]
    best = checkpoint_store.best(RUN)
    assert best is not None
    assert best["host"] == "box"


@pytest.mark.parametrize(("value", "host"), [(0.2, "spare"), (0.4, "box")])
def test_the_best_of_two_hosts_is_told_by_its_value(value: float, host: str) -> None:
    judged = {"best": True, "monitor": "loss", "mode": "min"}
    told_by(answer(line("epoch=4.ckpt", "a", step=10, value=0.3, **judged)))
    told_by(answer(line("epoch=9.ckpt", "b", step=20, value=value, **judged), host="h2"), "spare")
    assert part(checkpoint_store.best(RUN))["host"] == host


def test_of_two_copies_of_the_best_one_that_of_the_host_where_the_run_is_counts() -> None:
    told_by(answer(line("best.ckpt", "a", best=True, step=10, monitor="loss", mode="min", value=0.3)))
    told_by(answer(line(".gpurun/resume/best.ckpt", "a", step=10), line("x.ckpt", "x", step=20), host="h2"), "spare")
    assert part(checkpoint_store.best(RUN, at="spare"))["path"] == ".gpurun/resume/best.ckpt"
    assert part(checkpoint_store.best(RUN))["path"] == "best.ckpt"


def test_best_on_the_runs_own_host_is_told_by_its_name_and_not_by_its_bytes() -> None:
    judged = {"monitor": "loss", "mode": "min", "value": 0.3, "step": 10}
    told_by(answer(line("last.ckpt", "a", step=10), line("epoch=1.ckpt", "a", best=True, **judged)))
    assert part(checkpoint_store.best(RUN, at="box"))["path"] == "epoch=1.ckpt"


def test_saved_counts_the_checkpoints_of_all_hosts_and_names_what_is_there() -> None:
    judged = {"best": True, "monitor": "loss", "mode": "min"}
    told_by(answer(line("a.ckpt", "a", step=10, value=0.1, **judged), line("b.ckpt", "b", step=11)))
    told_by(answer(line("c.ckpt", "c", step=20, value=0.3, **judged), host="h2"), "spare")
    record = {"count": 1, "best": line("c.ckpt", "c"), "last": line("c.ckpt", "c")}
    saved = checkpoint_store.saved(RUN, "spare", part(record))
    assert (saved.count, part(saved.last)["path"], part(saved.best)["path"]) == (3, "c.ckpt", "a.ckpt")
    # Of its own host the ledger tells of a file that is gone there by now: the host knows better.
    gone = {"count": 1, "best": line("b.ckpt", "b"), "last": line("b.ckpt", "b")}
    told_by(answer({"path": "c.ckpt", "removed": True}, host="h2", begin=100, end=120), "spare")
    saved = checkpoint_store.saved(RUN, "box", part(gone))
    assert (saved.count, part(saved.best)["path"]) == (1, "b.ckpt")


def test_it_outlives_the_run() -> None:
    told_by(answer(line("a.ckpt")))
    run_store.remove(RUN)
    ((run, kept, entry),) = checkpoint_store.find(sha("a"))
    assert (run, entry["path"]) == (RUN, "a.ckpt")
    assert kept.origin["git"] == {"commit": "c0ffee", "branch": "main", "dirty": False}
    assert kept.origin["command"] == ["python", "train.py"]


def test_a_run_that_an_earlier_gpurun_removed_is_told_from_one_that_never_was() -> None:
    """Nothing was kept of it besides its checkpoints."""
    told_by(answer(line("a.ckpt")))
    assert checkpoint_store.removed("train") is None
    run_store.remove(RUN)
    assert (checkpoint_store.removed("train"), checkpoint_store.removed(RUN), checkpoint_store.removed("tra")) == (
        RUN,
        RUN,
        None,
    )
    with pytest.raises(UsageError, match=f"{RUN} is not on box any more; none of its files were fetched") as raised:
        runs.resolve("train")
    assert "gpurun which FILE" in raised.value.next_step
    with pytest.raises(UsageError, match="no run 'other' is known here"):
        runs.resolve("other")


def test_what_a_record_alone_tells_is_known_too() -> None:
    """A log that is followed to its end brings the record, and no ledger."""
    run_store.update(
        [record(checkpoints={"count": 2, "best": line("a.ckpt", "a"), "last": line("b.ckpt", "b")})], "box"
    )
    ((run, kept, entry),) = checkpoint_store.find(sha("a"))
    assert (run, kept.origin["project"], entry["path"], entry["best"]) == (RUN, "vision", "a.ckpt", True)
    told_by(answer(line("b.ckpt", "b", step=7)))
    assert [entry.get("step") for _, _, entry in checkpoint_store.find(sha("b"))] == [7]


def test_runs_that_the_index_does_not_have_are_not_ours() -> None:
    told_by(answer(line("a.ckpt"), run="other-2222"))
    assert checkpoint_store.find(sha("a")) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"path": "a.ckpt"},
        line("a.ckpt", sha256="../../etc/passwd"),
        line("a.ckpt", size="1"),
        line("a.ckpt", complete=False),
        line("x" * 5000),
        {"path": None, "removed": True},
        {"path": ["a"], "removed": True},
    ],
)
def test_lines_that_are_no_entries_are_passed_over(bad: Any) -> None:
    told_by(answer(bad))
    assert told() == []


def test_what_has_the_wrong_type_is_left_out() -> None:
    told_by(answer(line("a.ckpt", value="nan", step=True, epoch=float("nan"), monitor=3, attempt="2", best=1, t=1e200)))
    (entry,) = checkpoint_store.of(RUN).entries
    assert {"value", "step", "epoch", "monitor", "t"} & set(entry) == set()
    assert (entry["attempt"], entry["best"]) == (1, False)


def test_a_damaged_file_is_begun_anew() -> None:
    told_by(answer(line("a.ckpt")))
    (run_store.folder() / f"{RUN}.ledger").write_text("{")
    assert checkpoint_store.question([RUN]) == {"ledgers": {}}
    told_by(answer(line("b.ckpt")))
    assert told() == [("b.ckpt", False)]


def test_it_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "MOST", 2)
    told_by(answer(*(line(f"{n}.ckpt", str(n)) for n in range(4))))
    assert told() == [("2.ckpt", False), ("3.ckpt", False)]


def test_the_index_does_not_take_it_for_a_run() -> None:
    told_by(answer(line("a.ckpt")))
    assert [entry.id for entry in run_store.all_runs()] == [RUN]
