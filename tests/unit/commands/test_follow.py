"""Following over connections that break. The wire is a script of what each connection brings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gpurun.agent.schema.run import RunRecord
from gpurun.commands import follow
from gpurun.errors import ContactLost, GpurunError, HostError, HostUnreachable
from gpurun.remote.wire import Frame
from tests.support.part import part

RUNNING: Any = {"id": "a-1111", "name": "a", "project": "p", "created": 1.0, "state": "running"}
ENDED: Any = {**RUNNING, "state": "succeeded"}


class Stream:
    def __init__(self, frames: list[Frame[Any] | Exception]) -> None:
        self.answer = {"run": RUNNING}
        self.heard = time.monotonic()
        self._frames = frames

    def __iter__(self) -> Iterator[Frame[Any]]:
        for frame in self._frames:
            if isinstance(frame, Exception):
                raise frame
            yield frame

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def cut(self) -> None:
        raise AssertionError("a stream that speaks is not cut")


class Wire:
    """Gives out the answers of its script one after the other, and keeps what each question was."""

    host = "box"
    connection = SimpleNamespace(interactive=False)

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.looked = 0

    def quiet(self) -> Wire:
        return self

    def let_go(self) -> None:
        self.looked += 1

    def stream(self, verb: str, request: Any, *, within: float | None = None) -> Stream:
        return Stream(self._next(request))

    def ask(self, verb: str, request: Any, *, within: float | None = None) -> Any:
        return {"run": self._next(request)}

    def _next(self, request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Heard:
    def __init__(self) -> None:
        self.text = b""
        self.prepared = b""
        self.events: list[str] = []

    def log(self, data: bytes) -> None:
        self.text += data

    def prepare(self, data: bytes) -> None:
        self.prepared += data

    def state(self, record: Any) -> None:
        self.events.append(record["state"])

    def lost(self, what: str) -> None:
        self.events.append("lost")

    def back(self) -> None:
        self.events.append("back")

    def asks(self) -> None:
        raise AssertionError("nobody is there to be asked")


def log(offset: int, data: bytes) -> Frame[Any]:
    return Frame("log", offset, data)


LOST = ContactLost("gone", "try again")
END = Frame(end=ENDED)


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpurun.store.run_store.update", lambda *_, **__: None)


def run(wire: Wire, **request: Any) -> tuple[Heard, RunRecord]:
    heard = Heard()
    asked = part({"run": "a-1111", "follow": True, **request})
    return heard, follow.show_log(part(wire), asked, heard, sleep=lambda _: None)


def test_goes_on_at_the_byte_where_it_broke_off() -> None:
    wire = Wire([log(0, b"one\n"), LOST], [log(4, b"two\n"), END])
    heard, record = run(wire)
    assert heard.text == b"one\ntwo\n"
    assert wire.asked[1]["offset"] == 4
    assert record == ENDED
    assert heard.events.count("lost") == heard.events.count("back") == 1


def test_a_byte_that_comes_twice_is_shown_once() -> None:
    heard, _ = run(Wire([log(0, b"abcdef"), LOST], [log(3, b"defgh"), END]))
    assert heard.text == b"abcdefgh"


def test_a_tail_goes_on_where_it_was_and_not_at_the_tail_again() -> None:
    wire = Wire([log(100, b"last\n"), LOST], [log(105, b"more\n"), END])
    heard, _ = run(wire, tail=1)
    assert heard.text == b"last\nmore\n"
    assert (wire.asked[1]["offset"], wire.asked[1]["tail"]) == (105, None)


def test_a_tail_that_brought_nothing_yet_is_asked_for_again() -> None:
    wire = Wire([LOST], [log(100, b"last\n"), END])
    run(wire, tail=1)
    assert wire.asked[1]["tail"] == 1


def test_stamped_lines_count_without_their_stamps() -> None:
    stamp = b"2025-01-31T12:00:00Z "
    wire = Wire([log(0, stamp + b"one\n" + stamp + b"two\n"), LOST], [log(8, stamp + b"three"), END])
    heard, _ = run(wire, times=True)
    assert wire.asked[1]["offset"] == 8
    assert heard.text.endswith(stamp + b"three")


def test_what_preparing_said_is_not_said_again() -> None:
    wire = Wire([Frame("prepare", 0, b"pulling\n"), LOST], [Frame("prepare", 8, b"done\n"), log(0, b"x"), END])
    heard, _ = run(wire)
    assert heard.prepared == b"pulling\ndone\n"
    assert (wire.asked[1]["prepare_offset"], wire.asked[1]["offset"]) == (8, 0)


def test_a_host_that_says_why_nothing_follows_is_not_asked_again() -> None:
    wire = Wire([log(0, b"one\n"), HostError("the log cannot be shown")])
    with pytest.raises(HostError, match="cannot be shown"):
        run(wire)
    assert len(wire.asked) == 1


def test_several_tries_are_one_loss() -> None:
    wire = Wire([log(0, b"one\n"), LOST], LOST, LOST, LOST, [log(4, b"two\n"), END])
    heard, _ = run(wire)
    assert heard.text == b"one\ntwo\n"
    assert heard.events == ["running", "lost", "back", "succeeded"]
    assert wire.looked == 1  # what nothing gets through is let go before it is tried again


def test_what_only_a_person_can_mend_ends_it() -> None:
    with pytest.raises(HostUnreachable, match="another key"):
        run(Wire([LOST], HostUnreachable("another key", code="key_changed")))


def test_a_status_that_is_watched_goes_on_over_a_loss() -> None:
    wire, heard, shown = Wire(RUNNING, LOST, LOST, RUNNING, ENDED), Heard(), list[str]()
    answer = follow.watch(
        wire,  # type: ignore[arg-type]
        "a-1111",
        heard,
        lambda answer: shown.append(answer["run"]["state"]),
        sleep=lambda _: None,
    )
    assert answer["run"] == ENDED
    assert shown == ["running", "running", "succeeded"]
    assert heard.events == ["lost", "back"]


def test_the_first_connection_that_fails_is_an_error_at_once() -> None:
    with pytest.raises(HostUnreachable):
        run(Wire(HostUnreachable("wrong key")))


UNKNOWN: Any = {
    **RUNNING,
    "state": "unknown",
    "message": "it may be another machine's",
    "next": "gpurun stop --abandon a-1111",
}


def test_log_of_a_run_that_its_host_does_not_know_is_not_followed() -> None:
    with pytest.raises(GpurunError, match="it may be another machine's") as error:
        run(Wire([log(0, b"one\n"), Frame(state=UNKNOWN), log(4, b"two\n")]))
    assert (error.value.next_step, error.value.where) == ("gpurun stop --abandon a-1111", "box")


def test_log_of_a_run_that_its_host_does_not_know_is_shown_as_far_as_it_is() -> None:
    heard, record = run(Wire([log(0, b"one\n"), Frame(end=UNKNOWN)]), follow=False)
    assert (heard.text, record) == (b"one\n", UNKNOWN)


def test_watch_of_a_run_that_its_host_does_not_know_ends() -> None:
    heard, shown = Heard(), list[Any]()
    with pytest.raises(GpurunError, match="it may be another machine's"):
        follow.watch(Wire(UNKNOWN), "a-1111", heard, shown.append, sleep=lambda _: None)  # type: ignore[arg-type]
    assert shown == [{"run": UNKNOWN}]
