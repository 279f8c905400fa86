"""Runs that are fetched side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurun.errors import ContactLost, GpurunError
from gpurun.events import Event, Moved, Report, ignore
from gpurun.fetch import Fetched, one_pass, parallel

RUNS = {f"train-{number:04d}": Path(f"/fetched/{number}") for number in range(10)}


class Fetches:
    """Stands for `fetch_run`: waits until the test lets it go on, or is told that it is over."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most = 0
        self.now = 0
        self.go = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.failing: dict[str, Exception] = {}
        self.cut: list[str] = []

    def __call__(self, wire: Any, run: str, to: Path, *, report: Any, at_once: int, over: threading.Event) -> Fetched:
        assert at_once == 1
        with self.lock:
            self.begun.append(run)
            self.now += 1
            self.most = max(self.most, self.now)
        while not self.go.acquire(timeout=0.01):
            if over.is_set():
                self.cut.append(run)
                raise GpurunError("cut", "")
        report(Moved(5, 10))
        with self.lock:
            self.now -= 1
        if run in self.failing:
            over.set()  # as a pass does: its other transfers are to end
            raise self.failing[run]
        return Fetched(run, to)


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> Fetches:
    made = Fetches()
    monkeypatch.setattr(parallel, "fetch_run", made)
    return made


def run(ended: Callable[[str, Any], None], report: Report = ignore) -> None:
    parallel.fetch_runs(None, RUNS, dict.fromkeys(RUNS, 10), ended=ended, report=report)  # type: ignore[arg-type]


def test_several_runs_come_side_by_side_and_no_more_than_four(fetches: Fetches) -> None:
    results: dict[str, Any] = {}
    seen: list[tuple[int, int]] = []

    def report(event: Event) -> None:
        if fetches.now == parallel.AT_ONCE or len(fetches.begun) == len(RUNS):
            fetches.go.release()
        assert isinstance(event, Moved)
        seen.append((event.done, event.total))

    run(results.__setitem__, report)
    assert (sorted(results), fetches.most) == (sorted(RUNS), parallel.AT_ONCE)
    assert seen[0] == (0, 100)
    assert all(done <= total for done, total in seen)


def test_run_that_cannot_be_fetched_stops_no_other(fetches: Fetches) -> None:
    fetches.failing["train-0001"] = GpurunError("its folder is in use", "")
    fetches.go.release(100)
    results: dict[str, Any] = {}
    run(results.__setitem__)
    assert len(results) == len(RUNS)
    assert [one for one, result in results.items() if isinstance(result, GpurunError)] == ["train-0001"]


def test_run_whose_transfer_fails_ends_the_transfer_of_no_other(fetches: Fetches) -> None:
    fetches.failing["train-0001"] = GpurunError("the disk is full", "")
    results: dict[str, Any] = {}

    def report(event: Event) -> None:
        if len(fetches.begun) >= parallel.AT_ONCE:  # those that are begun, and then the others
            fetches.go.release()

    run(results.__setitem__, report)
    assert fetches.cut == []
    assert [one for one, result in results.items() if isinstance(result, GpurunError)] == ["train-0001"]


def test_no_run_is_begun_once_the_host_is_away(fetches: Fetches) -> None:
    fetches.failing = {one: ContactLost("no answer", "") for one in RUNS}
    fetches.go.release(100)
    results: dict[str, Any] = {}
    run(results.__setitem__)
    assert len(results) < len(RUNS)
    assert sorted(results) == sorted(fetches.begun)


def test_interrupt_ends_what_is_on_its_way(fetches: Fetches) -> None:
    def interrupt(event: Event) -> None:
        if len(fetches.begun) == parallel.AT_ONCE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(lambda run, result: None, interrupt)
    assert sorted(fetches.cut) == sorted(fetches.begun)


def test_run_beside_others_has_one_transfer_or_one_search_of_its_container_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A third session for each of four runs is more than sshd allows over one connection."""
    order: list[str] = []
    listing = SimpleNamespace(
        stamp=None, items=(), live=False, attempt=1, hook=False, unknown=None, container=True, left=[]
    )

    def list_(self: one_pass.Pass, *, outside: bool = False) -> Any:
        order.append("search" if outside else "list")
        return listing

    monkeypatch.setattr(one_pass.Pass, "_list", list_)
    monkeypatch.setattr(one_pass.Pass, "_bring", lambda *told, outside=False: order.append("bring"))
    monkeypatch.setattr(one_pass, "Background", lambda work: order.append(f"beside: {work()}"))
    destination: Any = SimpleNamespace(run="train-0001", root=Path("/fetched"), clear=lambda: None)
    wire: Any = SimpleNamespace(host="box")
    one_pass.Pass(wire, destination, (), ignore, at_once=1).run_through()
    assert order == ["list", "bring", "search", "bring"]
