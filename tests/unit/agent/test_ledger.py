"""A line that the host adds to a file of the plugin's, which a job may have replaced by anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import ledger
from gpurun.agent.schema.checkpoint import LedgerEntry


def test_a_line_behind_a_torn_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints.jsonl"
    file.write_bytes(b'{"path": "a"}\n{"pa')
    ledger.append(str(file), {"path": "b"})
    ledger.append(str(file), {"path": "c"})
    assert [entry["path"] for entry in ledger.lines(str(file))] == ["a", "b", "c"]


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    ledger.append(str(tmp_path / "progress.jsonl"), {"step": 3})
    assert json.loads((tmp_path / "progress.jsonl").read_text()) == {"step": 3}


def test_what_is_no_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            ledger.append(str(tmp_path / name), {"path": "b"})
    assert (tmp_path / "mine").read_text() == "mine"


def write_lines(path: Path, count: int, *, start: int = 0, keep: int = 3) -> None:
    """A long training that keeps the newest `keep` checkpoints."""
    with path.open("ab") as file:
        for step in range(start, start + count):
            told = {"path": f"{step}.ckpt", "step": step, "t": step, "complete": True, "size": 1, "sha256": "a" * 64}
            file.write(json.dumps(told).encode() + b"\n")
            if step >= keep:
                file.write(json.dumps({"path": f"{step - keep}.ckpt", "removed": True}).encode() + b"\n")


def paths(entries: Iterable[LedgerEntry]) -> list[str]:
    return [entry["path"] for entry in entries]


def test_read_of_a_long_ledger_goes_on_where_the_last_one_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, cache = tmp_path / "ledger", str(tmp_path / "cache")
    write_lines(long, 3000)
    assert paths(ledger.read(str(long), cache)) == ["2997.ckpt", "2998.ckpt", "2999.ckpt"]
    parsed, parse = list[bytes](), ledger.parse

    def note(line: bytes) -> Any:
        parsed.append(line)
        return parse(line)

    monkeypatch.setattr(ledger, "parse", note)
    write_lines(long, 1, start=3000)
    assert paths(ledger.read(str(long), cache)) == ["2998.ckpt", "2999.ckpt", "3000.ckpt"]
    assert len(parsed) == 2, "two lines were new"
    assert paths(ledger.read(str(long))) == ["2998.ckpt", "2999.ckpt", "3000.ckpt"]


def test_ledger_that_was_begun_anew_is_read_anew(tmp_path: Path) -> None:
    long, cache = tmp_path / "ledger", str(tmp_path / "cache")
    write_lines(long, 3000)
    ledger.read(str(long), cache)
    size = long.stat().st_size
    long.write_bytes(b"")  # the same file
    write_lines(long, 4000, start=9000, keep=99000)
    assert long.stat().st_size > size
    assert len(ledger.read(str(long), cache)) == 4000
    long.unlink()
    write_lines(long, 2)
    assert paths(ledger.read(str(long), cache)) == ["0.ckpt", "1.ckpt"]


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"inode": 1, "offset": "x", "mark": 1, "entries": 3}'])
def test_cache_that_is_spoilt_is_no_hindrance(tmp_path: Path, kept: str) -> None:
    (tmp_path / "cache").write_text(kept)
    write_lines(tmp_path / "ledger", 2)
    assert len(ledger.read(str(tmp_path / "ledger"), str(tmp_path / "cache"))) == 2


def test_read_of_so_many_bytes_goes_on_another_time(tmp_path: Path) -> None:
    long, cache = tmp_path / "ledger", str(tmp_path / "cache")
    write_lines(long, 6000)
    last, times = "", 0
    while last != "5999.ckpt":
        last = paths(ledger.read(str(long), cache, at_once=1 << 19))[-1]
        times += 1
        assert times < 10
    assert times > 1


def test_ledger_of_a_job_that_keeps_all_is_bounded_and_has_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "KEPT", 10)
    long = tmp_path / "ledger"
    with long.open("w") as file:
        for step in range(100):
            file.write(json.dumps({"path": f"{step}.ckpt", "step": step, "complete": True, "best": step == 5}) + "\n")
    found = ledger.read(str(long))
    assert paths(found) == ["5.ckpt", *(f"{step}.ckpt" for step in range(90, 100))]


def test_line_that_is_longer_than_any_of_the_plugins_is_no_entry(tmp_path: Path) -> None:
    long = tmp_path / "ledger"
    long.write_bytes(json.dumps({"path": "x" * (1 << 20), "complete": True}).encode() + b"\n")
    write_lines(long, 1)
    assert paths(ledger.read(str(long))) == ["0.ckpt"]


def test_brief_tells_no_number_that_nobody_can_show() -> None:
    told = ledger.brief({"path": "a", "size": 10**40, "t": 1e300, "step": 7, "value": float("nan")})
    assert told is not None
    assert (told["size"], told["t"], told["step"], told["value"]) == (None, None, 7, None)


def test_ledger_of_any_size_is_read_from_its_newest_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST", 1 << 16)
    long, cache = tmp_path / "ledger", str(tmp_path / "cache")
    with long.open("wb") as file:
        file.truncate(1 << 40)
    write_lines(long, 10)
    assert paths(ledger.read(str(long), cache)) == ["7.ckpt", "8.ckpt", "9.ckpt"]
    assert [entry["path"] for entry in ledger.lines(str(long))][-1] == "6.ckpt"


BEST: Any = {
    "path": "epoch=4.ckpt",
    "sha256": "a",
    "step": 50,
    "t": 1.0,
    "best": True,
    "monitor": "loss",
    "mode": "min",
    "value": 0.1,
}
COPY: Any = {**BEST, "path": "last.ckpt", "t": 2.0, "best": False, "last": True, "value": None}


@pytest.mark.parametrize(
    "entries",
    [
        [BEST, COPY],
        [COPY, {**BEST, "t": 3.0}],  # told again, once it was the best
        [{**BEST, "last": True}, {**COPY, "best": True}],  # the same file under two names: a link
        [{**COPY, "best": True}, {**BEST, "last": True, "t": 3.0}],
        [{**BEST, "best": False}, {**COPY, "value": 0.1}],  # nobody called one the best
    ],
)
def test_best_and_last_of_the_same_bytes_are_told_by_their_names(entries: list[dict[str, Any]]) -> None:
    for told in (entries, entries[::-1]):
        best, last = ledger.best(told), ledger.last(told)
        assert best is not None
        assert last is not None
        assert (best["path"], last["path"]) == ("epoch=4.ckpt", "last.ckpt")
        assert (ledger.of_content(told, "a") or {})["path"] == "epoch=4.ckpt"


def test_last_that_went_further_is_no_copy_of_the_best() -> None:
    stop = {"path": "gpurun-stop/step=60.ckpt", "sha256": "b", "step": 60, "t": 3.0}
    assert ledger.last([BEST, COPY, stop]) == stop


def test_places_are_read_on_from_where_they_were(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints.jsonl"
    ledger.append(str(file), {"path": "a"})
    places = ledger.Places()
    places.read_on(str(file))
    file.write_bytes(file.read_bytes().replace(b'"a"', b'"x"'))  # nobody looks there again
    ledger.append(str(file), {"path": "b"})
    ledger.append(str(file), {"path": "a"})
    places.read_on(str(file))
    assert places.of == {"a": 3, "b": 2}
    file.write_bytes(b"")
    ledger.append(str(file), {"path": "c"})
    places.read_on(str(file))
    assert places.of == {"c": 1}
