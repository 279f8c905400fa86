"""Following a run over connections that break: no byte twice, none missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gpurun import index
from gpurun.errors import ContactLost, HostUnreachable

if TYPE_CHECKING:
    from gpurun.wire import Frame, Stream, Wire

GIVE_UP_AFTER = 3600.0  # seconds without contact
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before each new try; the last one repeats
STAMP = len("2025-01-31T12:00:00Z ")  # what `times` puts before a line


class Listener(Protocol):
    """What happens to a run, as it happens."""

    def log(self, data: bytes) -> None: ...
    def prepare(self, data: bytes) -> None:
        """What the image and the dependencies say."""

    def state(self, record: dict[str, Any]) -> None: ...
    def lost(self, what: str) -> None: ...
    def back(self) -> None: ...


@dataclass
class _Place:
    """How far we have read. None: nothing came yet, so a new question starts where the first one did."""

    log: int | None = None
    prepare: int = 0

    def take(self, frame: Frame, *, times: bool) -> bytes:
        """The part of a frame that is new."""
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
    request: dict[str, Any],
    listener: Listener,
    *,
    stream: Stream | None = None,
    until: Callable[[dict[str, Any]], bool] = lambda record: False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Ask `logs` with `request` and hand over what comes; returns the last RunRecord.

    `stream`: one that is open already (of `start`). `until`: stop early, at the first such record. Once there was
    contact, a connection that breaks off is made again for an hour; then HostUnreachable is raised.
    """
    place = _Place()
    if stream is None:
        stream = wire.stream("logs", request)
        listener.state(stream.answer["run"])
    while True:
        try:
            with stream:
                for frame in stream:
                    record = _hand_over(frame, place, listener, times=bool(request.get("times")))
                    if record is not None and (frame.end is not None or until(record)):
                        index.update([record], wire.host)
                        return record
        except ContactLost as error:
            stream = _reach_again(wire, {**request, **_where(place)}, error, listener, sleep, clock)


def _reach_again(
    wire: Wire,
    request: dict[str, Any],
    failure: HostUnreachable,
    listener: Listener,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Stream:
    began, tries = clock(), 0
    while clock() - began < GIVE_UP_AFTER:
        listener.lost(failure.what)
        sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        tries += 1
        try:
            stream = wire.stream("logs", request)
        except HostUnreachable as error:
            failure = error
        else:
            listener.back()
            return stream
    raise failure


def _hand_over(frame: Frame, place: _Place, listener: Listener, *, times: bool) -> dict[str, Any] | None:
    """Pass one frame on; the record that it carries, if it does."""
    if frame.stream:
        data = place.take(frame, times=times)
        if data:
            (listener.log if frame.stream == "log" else listener.prepare)(data)
    record = frame.state or frame.end
    if record is not None:
        listener.state(record)
    return record


def _where(place: _Place) -> dict[str, Any]:
    """The part of the request that says where to go on."""
    if place.log is None and place.prepare == 0:
        return {}
    return {"offset": place.log or 0, "prepare_offset": place.prepare, "tail": None, "since": None}
