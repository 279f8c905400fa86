"""Following a run over connections that break: no byte twice, none missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from gpurun.agent import vocabulary as words
from gpurun.errors import ContactLost, HostUnreachable
from gpurun.remote import reconnect, records
from gpurun.store import run_questions, run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import RunAnswer, StatusAnswer
    from gpurun.agent.schema.requests import LogsRequest
    from gpurun.agent.schema.run import RunRecord
    from gpurun.remote.wire import Frame, Stream, Wire

T = TypeVar("T")

LOOK_EVERY = 2.0  # seconds between two questions of `watch`
STAMP = len("2025-01-31T12:00:00Z ")  # what `times` puts before a line


class Contact(Protocol):
    """What happens to the connection."""

    def lost(self, what: str) -> None: ...
    def back(self) -> None: ...
    def asks(self) -> None:
        """A person must log in again."""


class Listener(Contact, Protocol):
    """What happens to a run, as it happens."""

    def log(self, data: bytes) -> None: ...
    def prepare(self, data: bytes) -> None:
        """What the image and the dependencies say."""

    def state(self, record: RunRecord) -> None: ...


@dataclass
class _Place:
    """How far we have read. None: nothing came yet, so a new question starts where the first one did."""

    log: int | None = None
    prepare: int = 0
    attempt: int | None = None

    def take(self, frame: Frame[RunRecord], *, times: bool) -> bytes:
        """The part of a frame that is new."""
        if frame.attempt != self.attempt:
            self.log = None if self.attempt is None else 0
            self.prepare, self.attempt = 0, frame.attempt
        at = self.log if frame.stream == "log" else self.prepare
        data, size = frame.data, len(frame.data)
        if times and frame.stream == "log":
            size -= STAMP * (data.count(b"\n") + (not data.endswith(b"\n")))
        elif at is not None and frame.offset < at:
            data = data[at - frame.offset :]
        end = max(at or 0, frame.offset + size)
        if frame.stream == "log":
            self.log = end
        else:
            self.prepare = end
        return data


def show_log(
    wire: Wire,
    request: LogsRequest,
    listener: Listener,
    *,
    stream: Stream[RunAnswer, RunRecord] | None = None,
    until: Callable[[RunRecord], bool] = lambda record: False,
    sleep: Callable[[float], None] = time.sleep,
) -> RunRecord:
    """Ask `logs` with `request` and hand over what comes; returns the last RunRecord.

    `stream`: one that is open already (of `start`). `until`: stop early, at the first such record. Once there was
    contact, a connection that breaks off is made again as `remote.reconnect` has it. Raises GpurunError for a run that is to be followed
    and is unknown to its host.
    """
    place, began = _Place(), time.monotonic()
    follows = bool(request.get("follow"))
    if stream is None:
        stream = wire.stream("logs", request)
        if follows:
            records.refuse_unknown(stream.answer["run"], wire.host)
        listener.state(stream.answer["run"])
    within = reconnect.connect_within(time.monotonic() - began)

    def ask(wire: Wire, within: float | None) -> Stream[RunAnswer, RunRecord]:
        return wire.stream("logs", _from(place, request), within=within)

    while True:
        try:
            with stream, reconnect.Vigil(stream):
                for frame in stream:
                    record = _hand_over(frame, place, listener, times=bool(request.get("times")))
                    if record is not None and follows:
                        records.refuse_unknown(record, wire.host)
                    if record is not None and (frame.end is not None or until(record)):
                        run_store.update([record], wire.host)
                        return record
        except ContactLost as error:
            stream = _again(wire, ask, error, listener, within, sleep)


def watch(
    wire: Wire,
    run: str,
    contact: Contact,
    show: Callable[[StatusAnswer], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> StatusAnswer:
    """Ask `status` again and again until the run has ended, over connections that break; returns the last answer.

    `show` gets each answer. Raises as `show_log` does, also for a run that is unknown to its host.
    """
    began = time.monotonic()
    answer = run_questions.ask(wire, "status", {"run": run}, [run])
    within = reconnect.connect_within(time.monotonic() - began)

    def ask(wire: Wire, within: float | None) -> StatusAnswer:
        return run_questions.ask(wire, "status", {"run": run}, [run], within=within)

    while True:
        show(answer)
        if words.is_over(answer["run"]):
            return answer
        records.refuse_unknown(answer["run"], wire.host)
        sleep(LOOK_EVERY)
        try:
            answer = ask(wire.quiet(), reconnect.SILENT)
        except HostUnreachable as error:
            answer = _again(wire, ask, error, contact, within, sleep)


def _again(
    wire: Wire,
    ask: Callable[[Wire, float | None], T],
    error: HostUnreachable,
    contact: Contact,
    within: float,
    sleep: Callable[[float], None],
) -> T:
    def wait(seconds: float) -> bool:
        sleep(seconds)
        return False

    contact.lost(error.what)
    wire.let_go()
    found = reconnect.reach_again(wire, ask, within=within, asks=contact.asks, wait=wait)
    assert found is not None  # `wait` never gives up
    contact.back()
    return found


def _hand_over(frame: Frame[RunRecord], place: _Place, listener: Listener, *, times: bool) -> RunRecord | None:
    """Pass one frame on; the record that it carries, if it does."""
    if frame.stream:
        data = place.take(frame, times=times)
        if data:
            (listener.log if frame.stream == "log" else listener.prepare)(data)
    record = frame.state or frame.end
    if record is not None:
        listener.state(record)
    return record


def _from(place: _Place, request: LogsRequest) -> LogsRequest:
    """The request, for what comes behind `place`."""
    if place.log is None and place.prepare == 0:
        return request
    return {
        **request,
        "attempt": place.attempt,
        "offset": place.log or 0,
        "prepare_offset": place.prepare,
        "tail": None,
        "since": None,
    }
