"""Which submit goes on with the run of which."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpurun.store import pending_submits

FILES: Any = {"digest": "d", "count": 1}


@pytest.fixture(autouse=True)
def data_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pending_submits, "_folder", lambda: tmp_path / "submits")
    return tmp_path / "submits"


def job(run_id: str, **more: Any) -> Any:
    known = {
        "id": run_id,
        "token": f"token of {run_id}",
        "created": 1000.0,
        "args": [],
        "fetch_hint": f"gpurun fetch {run_id}",
    }
    return {**known, **more}


def at(seconds: float, *, clock: float = 0.0) -> Any:
    """So many seconds after the boot, by a clock that is ahead by `clock`."""
    return {"t": seconds + clock, "up": seconds, "boot": "c0ffee"}


def test_a_submit_that_broke_off_is_gone_on_with() -> None:
    pending_submits.take(job("a-1111"), FILES, "box", now=at(1000)).release()
    claim = pending_submits.take(job("a-2222"), FILES, "box", now=at(1010))
    assert claim.taken_over
    assert (claim.job["id"], claim.job["token"]) == ("a-1111", "token of a-1111")


def test_one_that_is_still_at_work_is_left_alone() -> None:
    first = pending_submits.take(job("a-1111"), FILES, "box", now=at(1000))
    assert pending_submits.take(job("a-2222"), FILES, "box", now=at(1000)).job["id"] == "a-2222"
    first.release()


def test_one_that_was_started_is_not_started_again() -> None:
    pending_submits.take(job("a-1111"), FILES, "box", now=at(1000)).settle()
    assert pending_submits.take(job("a-2222"), FILES, "box", now=at(1000)).job["id"] == "a-2222"


@pytest.mark.parametrize(
    ("other", "files", "host"),
    [({"args": ["--lr", "1"]}, FILES, "box"), ({}, {"digest": "edited"}, "box"), ({}, FILES, "other")],
)
def test_another_job_other_files_or_another_host_is_another_run(other: Any, files: Any, host: str) -> None:
    pending_submits.take(job("a-1111"), FILES, "box", now=at(1000)).release()
    assert not pending_submits.take(job("a-2222", **other), files, host, now=at(1000)).taken_over


def test_one_of_long_ago_is_forgotten(data_folder: Path) -> None:
    pending_submits.take(job("a-1111"), FILES, "box", now=at(1000)).release()
    assert not pending_submits.take(
        job("a-2222"), FILES, "box", now=at(1000 + pending_submits.FORGET_AFTER + 1)
    ).taken_over
    assert [path.stem for path in data_folder.glob("*.json")] == ["a-2222"]


def test_a_torn_claim_is_passed_over(data_folder: Path) -> None:
    data_folder.mkdir()
    (data_folder / "a-1111.json").write_bytes(b"{")
    assert pending_submits.take(job("a-2222"), FILES, "box", now=at(1000)).job["id"] == "a-2222"


def test_claims_are_private(data_folder: Path) -> None:
    pending_submits.take(job("a-1111"), FILES, "box", now=at(1000))
    assert os.stat(data_folder / "a-1111.json").st_mode & 0o077 == 0


def test_id_that_is_taken_is_drawn_anew() -> None:
    first = pending_submits.take(
        job("a-1111", name="a"), FILES, "box", is_taken=lambda run: run == "a-1111", now=at(1000)
    )
    assert first.job["id"] != "a-1111"
    assert first.job["id"].startswith("a-")
    assert first.job["fetch_hint"] == f"gpurun fetch {first.job['id']}"
    first.release()
    again = pending_submits.take(job("a-1111", name="a"), FILES, "box", is_taken=lambda run: True, now=at(1000))
    assert again.job["id"] == first.job["id"], "its own run has it"


def test_id_that_another_submit_has_is_drawn_anew() -> None:
    held = pending_submits.take(job("a-1111", name="a"), FILES, "box", now=at(1000))
    other = pending_submits.take(job("a-1111", name="a", args=["x"]), FILES, "box", now=at(1000))
    assert {held.job["id"], other.job["id"]} > {"a-1111"}


def test_claim_that_is_released_twice_closes_no_file_of_another(tmp_path: Path) -> None:
    claim = pending_submits.take(job("a-1111"), FILES, "box", now=at(1000))
    claim.settle()
    with (tmp_path / "another").open("w") as file:
        os.dup2(file.fileno(), claim._lock)  # as a file has it that is opened now
    claim.release()
    claim.settle()
    os.close(claim._lock)  # raises when it is closed already


@pytest.mark.parametrize("ahead", [1e6, -1e6])
def test_clock_that_is_set_makes_no_claim_older_or_younger(ahead: float) -> None:
    pending_submits.take(job("a-1111"), FILES, "box", now=at(1000)).release()
    late = 1000 + pending_submits.FORGET_AFTER
    pending_submits.take(job("a-2222"), FILES, "box", now=at(late - 1, clock=ahead)).release()
    assert not pending_submits.take(job("a-3333"), FILES, "box", now=at(late + 1, clock=ahead)).taken_over
