"""What a run's end means for an exit code, and how runs are waited for."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun import prune, runs
from gpurun.hints import hint


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("succeeded", 0, 0),
        ("failed", 3, 3),
        ("failed", 137, 137),
        ("failed", None, 125),
        ("failed", 0, 125),
        ("stopped", 0, 143),
        ("stopped", 137, 137),
        ("stopped", None, 143),
        ("timed_out", 0, 143),
        ("lost", None, 125),
        ("running", None, None),
        ("queued", None, None),
    ],
)
def test_only_success_ends_with_0(state: str, code: int | None, expected: int | None) -> None:
    assert runs.exit_code({"state": state, "exit_code": code}) == expected


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("ModuleNotFoundError: No module named 'timm.models'", "`timm`"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "smaller batch"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "--shm-size"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'", "data/train.csv"),
        ("OSError: [Errno 28] No space left on device", "prune"),
    ],
)
def test_hints(said: str, part: str) -> None:
    found = hint(f"Traceback (most recent call last):\n{said}")
    assert found is not None
    assert part in found


def test_no_hint_for_what_is_not_known() -> None:
    assert hint("ValueError: x") is None


def test_waiting_asks_again_while_the_host_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpurun.errors import ContactLost

    answers: list[Any] = [
        {"runs": [{"id": "a", "state": "running"}]},
        ContactLost("gone"),
        {"runs": [{"id": "a", "state": "failed", "exit_code": 3}]},
    ]

    class Wire:
        def ask(self, *_: object, **__: object) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    lost: list[str] = []
    monkeypatch.setattr(runs, "wire_to", lambda host: Wire())
    monkeypatch.setattr("gpurun.index.update", lambda *_, **__: None)
    waiting = runs.Waiting(lost=lambda host, error: lost.append(host), sleep=lambda _: None)
    done = runs._wait_on("box", ["a"], waiting)
    assert [record["state"] for record in done] == ["failed"]
    assert lost == ["box"]


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        ({"created": 1000.0, "ended": 2000.0}, 98_000.0),
        ({"created": 99_000.0, "ended": 2000.0}, 1000.0),  # the host's clock was wrong until NTP came
        ({"created": 1000.0, "ended": 2000.0, "ended_mark": {"up": 40.0, "boot": "b"}}, 60.0),
        ({"created": 1000.0, "ended": 2000.0, "ended_mark": {"up": 40.0, "boot": "another"}}, 98_000.0),
        ({"created": None, "ended": None}, 0.0),
    ],
)
def test_prune_age_is_the_youngest_that_any_clock_tells(record: dict[str, Any], seconds: float) -> None:
    answer = {"now": 100_000.0, "mark": {"t": 100_000.0, "up": 100.0, "boot": "b"}}
    assert prune.age(record, answer, here=100_000.0) == seconds
