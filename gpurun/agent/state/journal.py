"""A run's journal: one event a line, fsynced; the run's state is a fold over it. All state changes go through `record`.

An event is `{"t": unix seconds, "up": …, "boot": …, "v": schema, "event": name, ...}`; the first three are a mark (see
clocks.py), and those of gpurun 0.1.0 have `t` alone. Names that change the state are the states themselves, `ended`, and
`attempt`, which begins the next attempt of a run behind an end (`moved`: it began on another host; `moving`: it may begin there,
until `given_back`; see moving.py); the others (`stop`, `shutdown`, `waiting`, `step`, `leased`, `prepared`, `note`) carry facts. An `ended` with `again` ends the attempt and not the run: the next one begins by itself.
`queued` carries the `manifest` of the snapshot, and `ended` for how many seconds the job `ran`.

A journal that a newer gpurun has written to is read as far as it can be (`Run.newer`), one with an event that lacks what it
must have, or a line that is none, is read without it (`Run.damaged`). Nothing is done to a run of either kind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Tuple, TypeVar, cast

from .. import clocks
from .. import vocabulary as words
from ..files import read_json, write_atomically, write_json
from ..paths import RunPaths

if TYPE_CHECKING:
    from typing import Unpack  # novm

    from ..schema.host import GpuOfRun
    from ..schema.run import AttemptSummary, Event, ExitRecord, Facts, FactsOfEnd, Manifest, Mark, Prepared

T = TypeVar("T")


def _no_event() -> Event:
    return {}


@dataclass
class Run:
    """What the journal says of a run, and how it ended. Times are unix seconds on the host's clock."""

    state: str = words.CREATED
    since: Optional[float] = None
    started: Optional[float] = None
    ended: Optional[float] = None
    reason: Optional[str] = None
    message: Optional[str] = None
    next_step: Optional[str] = None
    exit_code: Optional[int] = None
    waiting: Optional[str] = None
    step: Event = field(default_factory=_no_event)  # what is being done before the job starts (`doing`), and since when
    ticket: Optional[int] = None
    aside: bool = False  # it wants more GPUs than the host has, and lets those behind it pass
    boot_id: Optional[str] = None
    gpus: List[GpuOfRun] = field(default_factory=list)
    prepared: Optional[Prepared] = None
    stop: Optional[Event] = None
    shutdown: Optional[float] = None  # when the host told the supervisor to go while the job ran
    notes: List[str] = field(default_factory=list)
    arrived: bool = False  # its code was sent whole
    attempt: int = 1
    begun: Event = field(default_factory=_no_event)  # the event of this attempt; empty for a first one
    between: bool = False  # this attempt has ended, and the next one is to begin
    moved: Optional[str] = None  # the host on which the next one began, as the laptop calls it
    moving: Optional[Event] = None  # the event by which the next one was left to another host, which may have begun it
    outcome: Optional[str] = None  # the state that this attempt ended in
    earlier: List[AttemptSummary] = field(default_factory=list)  # how the attempts before this one ended
    retried: int = 0  # attempts that began by themselves since somebody asked for one
    spent: float = 0.0  # seconds that those before them ran
    ran: float = 0.0  # seconds that this attempt ran, once it has ended
    manifest: Optional[Manifest] = None  # of the snapshot, as it was checked and flushed
    sent: Event = field(default_factory=_no_event)  # the mark of that
    running: Event = field(default_factory=_no_event)  # the event by which this attempt's job runs
    end: Event = field(default_factory=_no_event)  # the event of its end
    last: Event = field(default_factory=_no_event)  # the newest event of the attempt
    newer: Optional[str] = None  # why only a newer gpurun may go on with it
    damaged: Optional[str] = None  # which event or line could not be read

    @property
    def live(self) -> bool:
        return self.state not in words.ENDS and (self.outcome is None or self.between)


RESERVE = 1 << 16  # bytes
CREDIBLE = 30 * 86400.0  # seconds; a longer attempt, by the clock alone, is one behind whose back the clock was set


def keep_reserve(run: RunPaths) -> None:
    """Put space aside, so that a run whose job has filled the disk can still be stopped and its end be recorded."""
    write_atomically(run.reserve, os.urandom(RESERVE))  # which no file system makes smaller


def record(run: RunPaths, event: str, **facts: Unpack[Facts]) -> Event:
    """Append one event and make it last. After the run's end nothing but notes is written."""
    return _with_reserve(run, lambda: _record(run, event, facts))


def record_step(run: RunPaths, doing: str) -> None:
    """Note what is being done before the job starts, unless the journal says so already: a step may be repeated."""
    if fold(run).step.get("doing") != doing:
        record(run, "step", doing=doing)


def record_end(
    run: RunPaths, state: str, reason: str, *, again: bool = False, owes: bool = False, **facts: Unpack[FactsOfEnd]
) -> bool:
    """Write how the run ended: `exit.json`, then the event. The first end of an attempt wins; False when there was one.

    With `again` the attempt alone has ended: its exit.json is put aside at once, and the run stays live. With `owes` the
    run's `on_end` is noted as owed before, so that a kill at any moment does not make it forgotten.
    """
    return _with_reserve(run, lambda: _record_end(run, state, reason, again, owes, facts))


def _record(run: RunPaths, event: str, facts: Facts) -> Event:
    with _opened(run) as file:
        return _append(file, event, cast("Event", facts))


def _record_end(run: RunPaths, state: str, reason: str, again: bool, owes: bool, facts: FactsOfEnd) -> bool:
    with _opened(run) as file:
        known = fold(run)
        if not known.live or (again and known.between):
            _owe_nothing(run, file)
            return False
        told = cast(
            "ExitRecord", {**clocks.mark(), "v": words.JOURNAL_SCHEMA, "state": state, "reason": reason, **facts}
        )
        if "up" in known.running:  # else an earlier gpurun started the job, and the fold has the clock for it
            told["ran"] = _ran(run, known, told)
        if again:
            told["again"] = True
        place = run.of_attempt(known.attempt) if again else run
        os.makedirs(os.path.dirname(place.exit), exist_ok=True)
        if owes:
            write_json(run.owed, {"attempt": known.attempt})
        write_json(place.exit, {"attempt": known.attempt, **told})
        _append(file, "ended", _facts_of(told))
    return True


def repair_end(run: RunPaths) -> None:
    """Write the event that a process killed behind exit.json owes, so that exit.json may be put aside."""
    with _opened(run) as file:
        _owe_nothing(run, file)


def _owe_nothing(run: RunPaths, file: int) -> None:
    known = replay(read(run))
    ended = _read_exit(run) or _read_exit(run.of_attempt(known.attempt))
    if ended is not None and known.live and not known.between:
        _append(file, "ended", _facts_of(ended))


def _facts_of(ended: ExitRecord) -> Event:
    """What exit.json says, as the event says it."""
    return cast("Event", {key: value for key, value in ended.items() if key != "attempt"})


def _read_exit(place: RunPaths) -> Optional[ExitRecord]:
    ended: Optional[ExitRecord] = read_json(place.exit)
    return ended


def _ran(run: RunPaths, known: Run, now: Mark) -> float:
    """Seconds that the attempt's job ran. Of a boot that is over, those that something bears witness to."""
    passed = clocks.between(known.running, now)
    if passed is None:
        usage: Optional[Mark] = read_json(run.usage)
        witnesses: List[Mark] = [known.last] + ([usage] if usage else [])
        seen = [clocks.between(known.running, mark) for mark in witnesses]
        passed = max([0.0, *(seconds for seconds in seen if seconds is not None)])
    return passed


def _with_reserve(run: RunPaths, write: Callable[[], T]) -> T:
    """Do `write`; on a full disk give the reserve up for it."""
    try:
        return write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.exists(run.reserve):
            raise
        os.unlink(run.reserve)
        return write()


def read(run: RunPaths) -> List[Event]:
    """All whole events; a torn last line is left out."""
    return _read(run)[0]


def _read(run: RunPaths) -> Tuple[List[Event], List[int]]:
    """All whole events, and the numbers of the lines that end and are none, from 1. They stay in the file as they are."""
    try:
        with open(run.events, "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return [], []
    found = [_parse(line) for line in lines]
    bad = [at for at, (event, line) in enumerate(zip(found, lines), 1) if event is None and line.strip()]
    return [event for event in found if event is not None], bad


def schema_of(job: Any) -> float:
    """Return the schema that a job.json is of. Higher than `words.JOB_SCHEMA`: it is a newer gpurun's."""
    schema = job.get("schema", 1) if isinstance(job, dict) else 1
    return float(schema) if isinstance(schema, (int, float)) else float("inf")


def fold(run: RunPaths) -> Run:
    """The run as its journal and its exit record say."""
    events, bad = _read(run)
    state = replay(events)
    if bad:  # what it told is not known: that the job was started, perhaps
        state.damaged = state.damaged or "line %d of %s is no event" % (bad[0], run.events)
    if state.live:  # somebody may have been killed between exit.json and the event
        ended = _read_exit(run)
        if ended is None and not state.between:
            ended = _read_exit(run.of_attempt(state.attempt))
        if ended is not None:
            state = _safely(state, {**_facts_of(ended), "event": "ended"})
    return state


def replay(events: List[Event]) -> Run:
    """The pure fold."""
    state = Run()
    for event in events:
        state = _safely(state, event)
    return state


def _safely(state: Run, event: Event) -> Run:
    try:
        return _after(state, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        state.damaged = "its event %s cannot be read (%s: %s)" % (event["event"], type(error).__name__, error)
        return state


def _after(state: Run, event: Event) -> Run:
    if event["event"] == "attempt":
        state = _next(state, event)
    elif state.live or event["event"] in ("note", "moved", "moving", "given_back"):
        _apply(state, event)
    state.last = event
    if event.get("v", 1) > words.JOURNAL_SCHEMA:
        state.newer = "its journal is of schema %s, and this gpurun knows %d" % (event["v"], words.JOURNAL_SCHEMA)
    return state


def _next(run: Run, event: Event) -> Run:
    """The run at the beginning of its next attempt."""
    by_itself = event["why"] == "retry"
    return Run(
        state=words.QUEUED,
        since=event["t"],
        ticket=event.get("ticket"),
        notes=run.notes,
        arrived=True,
        stop=run.stop if by_itself else None,  # asked for while that was being made ready
        attempt=event["number"],
        begun=event,
        earlier=event.get("earlier") or [*run.earlier, summary(run)],
        retried=run.retried + 1 if by_itself else 0,
        spent=run.spent + run.ran if by_itself else 0.0,
        manifest=event.get("manifest") or run.manifest,
        sent=event if event.get("manifest") else run.sent,
        newer=run.newer,
        damaged=run.damaged,
    )


def summary(run: Run) -> AttemptSummary:
    """How an attempt went, for those that come after it."""
    return {
        "attempt": run.attempt,
        "state": run.outcome,
        "reason": run.reason,
        "exit_code": run.exit_code,
        "message": run.message,
        "started": run.started,
        "ended": run.ended,
        "ran": run.ran if run.started and run.ended else None,
    }


def _apply(run: Run, event: Event) -> None:
    name = event["event"]
    if name in words.STATES:
        run.state, run.since, run.waiting, run.step = name, event["t"], event.get("waiting"), {}
        run.ticket = event.get("ticket", run.ticket)
        run.aside = bool(event.get("aside"))
        run.arrived = run.arrived or name == words.QUEUED
        if event.get("manifest"):
            run.manifest, run.sent = event["manifest"], event
        if name == words.RUNNING:
            run.started, run.boot_id, run.running = event["t"], event.get("boot_id"), event
    elif name == "ended":
        run.outcome, run.between = event["state"], bool(event.get("again"))
        run.state, run.since, run.ended = words.QUEUED if run.between else event["state"], event["t"], event["t"]
        run.reason, run.exit_code = event["reason"], event.get("exit_code")
        run.ran, run.end = _seconds(run, event), event
        if event["state"] not in words.ENDS:
            run.newer = "it ended as %r, which this gpurun does not know" % (event["state"],)
        run.message, run.next_step = event.get("message"), event.get("next")
        run.waiting = "attempt %d" % (run.attempt + 1) if run.between else None
    elif name == "stop":
        run.stop = event
    elif name == "shutdown":
        run.shutdown = event["t"]
    elif name in ("waiting", "step"):
        run.waiting, run.step = event.get("waiting"), event if name == "step" else run.step
    elif name == "leased":
        run.gpus, run.waiting = cast("List[GpuOfRun]", event["gpus"]), None
    elif name == "prepared":
        run.prepared, run.step = event["record"], {}
    elif name in ("moved", "moving", "given_back"):
        run.moved = event["to"] if name == "moved" else run.moved
        run.moving = event if name == "moving" else None
    elif name == "note":
        run.notes.append(event["message"] or "")


def _seconds(run: Run, end: Event) -> float:
    """How long the job ran. Of a journal with unix seconds alone, what no clock that was set can have made."""
    if "ran" in end or not run.started:
        return float(end.get("ran", 0.0))
    passed = float(end["t"]) - run.started
    return passed if 0.0 <= passed <= CREDIBLE else 0.0


def _parse(line: bytes) -> Optional[Event]:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    return cast("Event", event) if type(event.get("t")) in (int, float) else None


@contextmanager
def _opened(run: RunPaths) -> Iterator[int]:
    """The journal, open for appending, alone (the stop verb and the supervisor both write), its torn line cut off."""
    fd = os.open(run.events, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _repair(fd)
        yield fd
    finally:
        os.close(fd)


def _repair(fd: int) -> None:
    """Cut off what a crash left of a line: it was never acknowledged to anybody."""
    size = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return
    content = os.pread(fd, size, 0)
    os.ftruncate(fd, content.rfind(b"\n") + 1)


def _append(fd: int, event: str, facts: Event) -> Event:
    entry: Event = {**clocks.mark(), "v": words.JOURNAL_SCHEMA, "event": event, **facts}
    line = (json.dumps(entry) + "\n").encode()
    size = os.fstat(fd).st_size
    if os.write(fd, line) != len(line):  # a disk that is nearly full takes a part
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(fd)
    return entry
