"""Write and read a run's journal: one fsynced event per line. The run's state is a fold over the events.

All state changes go through `record`.

An event is `{"t": unix seconds, "up": …, "boot": …, "v": schema, "event": name, ...}`. The first three are a mark (see
clocks.py); events of gpurun 0.1.0 have only `t`. The names that change the state are the states themselves, `ended`,
and `attempt`, which begins the next attempt of a run after an end. `moved`: the next attempt began on another host.
`moving`: it may begin there, until `given_back` (see moving.py). The others (`stop`, `shutdown`, `waiting`, `step`,
`leased`, `prepared`, `note`) carry facts. An `ended` with `again` ends the attempt and not the run: the next attempt
begins automatically. `queued` carries the `manifest` of the snapshot, and `ended` the seconds that the job `ran`.

A journal with events of a newer gpurun is read as far as possible (`Run.newer`). An event without required values, or a
line that is not an event, is skipped (`Run.damaged`). gpurun changes nothing about a run of either kind.
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
    """Hold what the journal records of a run, and how the run ended. Times are unix seconds on the host's clock."""

    state: str = words.CREATED
    since: Optional[float] = None
    started: Optional[float] = None
    ended: Optional[float] = None
    reason: Optional[str] = None
    message: Optional[str] = None
    next_step: Optional[str] = None
    exit_code: Optional[int] = None
    waiting: Optional[str] = None
    step: Event = field(default_factory=_no_event)  # the step before the job starts (`doing`), and since when
    ticket: Optional[int] = None
    aside: bool = False  # the run needs more GPUs than the host has, and lets the runs behind it pass
    boot_id: Optional[str] = None
    gpus: List[GpuOfRun] = field(default_factory=list)
    prepared: Optional[Prepared] = None
    stop: Optional[Event] = None
    shutdown: Optional[float] = None  # when the host shut down the supervisor while the job ran
    notes: List[str] = field(default_factory=list)
    arrived: bool = False  # its code was sent completely
    attempt: int = 1
    begun: Event = field(default_factory=_no_event)  # the event that began this attempt; empty for the first attempt
    between: bool = False  # this attempt has ended, and the next has not begun
    moved: Optional[str] = None  # the host on which the next attempt began, by the laptop's name for it
    moving: Optional[Event] = None  # the event that handed the next attempt to another host, which may have begun it
    outcome: Optional[str] = None  # the state that this attempt ended in
    earlier: List[AttemptSummary] = field(default_factory=list)  # how the earlier attempts ended
    retried: int = 0  # automatic retries since a user last requested an attempt
    spent: float = 0.0  # seconds that the attempts before those ran
    ran: float = 0.0  # seconds that this attempt ran, once it has ended
    manifest: Optional[Manifest] = None  # of the snapshot that was checked and flushed
    sent: Event = field(default_factory=_no_event)  # the event of that check
    running: Event = field(default_factory=_no_event)  # the event that this attempt's job runs
    end: Event = field(default_factory=_no_event)  # the event of this attempt's end
    last: Event = field(default_factory=_no_event)  # the newest event of the attempt
    newer: Optional[str] = None  # why only a newer gpurun may continue the run
    damaged: Optional[str] = None  # which event or line could not be read

    @property
    def live(self) -> bool:
        return self.state not in words.ENDS and (self.outcome is None or self.between)


RESERVE = 1 << 16  # bytes
CREDIBLE = 30 * 86400.0  # seconds; if the clock shows a longer attempt, the clock was set in between


def keep_reserve(run: RunPaths) -> None:
    """Reserve disk space, so that a run whose job has filled the disk can still be stopped and its end be recorded."""
    write_atomically(run.reserve, os.urandom(RESERVE))  # random bytes, which no file system can compress


def record(run: RunPaths, event: str, **facts: Unpack[Facts]) -> Event:
    """Append one event and flush it. After the run's end, only notes are written."""
    return _with_reserve(run, lambda: _record(run, event, facts))


def record_step(run: RunPaths, doing: str) -> None:
    """Record which step begins before the job starts, unless the journal has it already: a step may be repeated."""
    if fold(run).step.get("doing") != doing:
        record(run, "step", doing=doing)


def record_end(
    run: RunPaths, state: str, reason: str, *, again: bool = False, owes: bool = False, **facts: Unpack[FactsOfEnd]
) -> bool:
    """Write how the run ended: `exit.json`, then the event.

    Only the first end of an attempt is written; return False for a later one.

    With `again` only the attempt has ended: its exit.json is moved aside at once, and the run stays live. With `owes`,
    a file first records that `on_end` must run, so that a kill at any moment does not lose it.
    """
    return _with_reserve(run, lambda: _record_end(run, state, reason, again, owes, facts))


def _record(run: RunPaths, event: str, facts: Facts) -> Event:
    with _open_locked(run) as file:
        return _append(file, event, cast("Event", facts))


def _record_end(run: RunPaths, state: str, reason: str, again: bool, owes: bool, facts: FactsOfEnd) -> bool:
    with _open_locked(run) as file:
        state_before = fold(run)
        if not state_before.live or (again and state_before.between):
            _write_missing_end(run, file)
            return False
        facts_of_end = cast(
            "ExitRecord", {**clocks.mark(), "v": words.JOURNAL_SCHEMA, "state": state, "reason": reason, **facts}
        )
        if "up" in state_before.running:  # else an earlier gpurun started the job, and the fold uses the clock
            facts_of_end["ran"] = _seconds_ran(run, state_before, facts_of_end)
        if again:
            facts_of_end["again"] = True
        place = run.of_attempt(state_before.attempt) if again else run
        os.makedirs(os.path.dirname(place.exit), exist_ok=True)
        if owes:
            write_json(run.owed, {"attempt": state_before.attempt})
        write_json(place.exit, {"attempt": state_before.attempt, **facts_of_end})
        _append(file, "ended", _event_facts(facts_of_end))
    return True


def repair_end(run: RunPaths) -> None:
    """Write the event that is missing when a process was killed after it wrote exit.json, so that exit.json may be
    moved aside.
    """
    with _open_locked(run) as file:
        _write_missing_end(run, file)


def _write_missing_end(run: RunPaths, file: int) -> None:
    """Write the event of an end that only exit.json records."""
    state = replay(read(run))
    ended = _read_exit(run) or _read_exit(run.of_attempt(state.attempt))
    if ended is not None and state.live and not state.between:
        _append(file, "ended", _event_facts(ended))


def _event_facts(ended: ExitRecord) -> Event:
    """Return the facts of exit.json as the event has them."""
    return cast("Event", {key: value for key, value in ended.items() if key != "attempt"})


def _read_exit(place: RunPaths) -> Optional[ExitRecord]:
    ended: Optional[ExitRecord] = read_json(place.exit)
    return ended


def _seconds_ran(run: RunPaths, state: Run, now: Mark) -> float:
    """Return the seconds that the attempt's job ran. For an earlier boot, count only the time that a record proves."""
    passed = clocks.between(state.running, now)
    if passed is None:
        usage: Optional[Mark] = read_json(run.usage)
        witnesses: List[Mark] = [state.last] + ([usage] if usage else [])
        proved = [clocks.between(state.running, mark) for mark in witnesses]
        passed = max([0.0, *(seconds for seconds in proved if seconds is not None)])
    return passed


def _with_reserve(run: RunPaths, write: Callable[[], T]) -> T:
    """Run `write`. On a full disk, remove the reserve and run it again."""
    try:
        return write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.exists(run.reserve):
            raise
        os.unlink(run.reserve)
        return write()


def read(run: RunPaths) -> List[Event]:
    """Return all complete events. An incomplete last line is skipped."""
    return _read(run)[0]


def _read(run: RunPaths) -> Tuple[List[Event], List[int]]:
    """Return all complete events, and the numbers (from 1) of complete lines that are not events.

    Those lines stay in the file.
    """
    try:
        with open(run.events, "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return [], []
    parsed = [_parse_event(line) for line in lines]
    bad = [at for at, (event, line) in enumerate(zip(parsed, lines), 1) if event is None and line.strip()]
    return [event for event in parsed if event is not None], bad


def schema_of(job: Any) -> float:
    """Return the schema of a job.json. When it is higher than `words.JOB_SCHEMA`, a newer gpurun wrote the file."""
    schema = job.get("schema", 1) if isinstance(job, dict) else 1
    return float(schema) if isinstance(schema, (int, float)) else float("inf")


def fold(run: RunPaths) -> Run:
    """Return the run as its journal and its exit record describe it."""
    events, bad = _read(run)
    state = replay(events)
    if bad:  # its content is unknown: the job may have been started
        state.damaged = state.damaged or "line %d of %s is not an event" % (bad[0], run.events)
    if state.live:  # a process may have been killed between exit.json and the event
        ended = _read_exit(run)
        if ended is None and not state.between:
            ended = _read_exit(run.of_attempt(state.attempt))
        if ended is not None:
            state = _apply_safely(state, {**_event_facts(ended), "event": "ended"})
    return state


def replay(events: List[Event]) -> Run:
    """Return the run after these events. Pure."""
    state = Run()
    for event in events:
        state = _apply_safely(state, event)
    return state


def _apply_safely(state: Run, event: Event) -> Run:
    try:
        return _after(state, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        state.damaged = "its event %s cannot be read (%s: %s)" % (event["event"], type(error).__name__, error)
        return state


def _after(state: Run, event: Event) -> Run:
    if event["event"] == "attempt":
        state = _begin_attempt(state, event)
    elif state.live or event["event"] in ("note", "moved", "moving", "given_back"):
        _apply(state, event)
    state.last = event
    if event.get("v", 1) > words.JOURNAL_SCHEMA:
        state.newer = "its journal has schema %s, and this gpurun reads up to %d" % (event["v"], words.JOURNAL_SCHEMA)
    return state


def _begin_attempt(run: Run, event: Event) -> Run:
    """Return the run at the beginning of its next attempt."""
    is_retry = event["why"] == "retry"
    return Run(
        state=words.QUEUED,
        since=event["t"],
        ticket=event.get("ticket"),
        notes=run.notes,
        arrived=True,
        stop=run.stop if is_retry else None,  # it was requested while the attempt was being prepared
        attempt=event["number"],
        begun=event,
        earlier=event.get("earlier") or [*run.earlier, summary(run)],
        retried=run.retried + 1 if is_retry else 0,
        spent=run.spent + run.ran if is_retry else 0.0,
        manifest=event.get("manifest") or run.manifest,
        sent=event if event.get("manifest") else run.sent,
        newer=run.newer,
        damaged=run.damaged,
    )


def summary(run: Run) -> AttemptSummary:
    """Return how an attempt went, for the attempts after it."""
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
        run.ran, run.end = _credible_seconds(run, event), event
        if event["state"] not in words.ENDS:
            run.newer = "it ended as %r, a state that this gpurun does not have" % (event["state"],)
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


def _credible_seconds(run: Run, end: Event) -> float:
    """Return how long the job ran.

    For a journal with unix seconds only, ignore a value that can only come from a clock that was set.
    """
    if "ran" in end or not run.started:
        return float(end.get("ran", 0.0))
    passed = float(end["t"]) - run.started
    return passed if 0.0 <= passed <= CREDIBLE else 0.0


def _parse_event(line: bytes) -> Optional[Event]:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    return cast("Event", event) if type(event.get("t")) in (int, float) else None


@contextmanager
def _open_locked(run: RunPaths) -> Iterator[int]:
    """Open the journal for appending and lock it (the stop verb and the supervisor both write).

    An incomplete last line is cut off.
    """
    fd = os.open(run.events, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _repair(fd)
        yield fd
    finally:
        os.close(fd)


def _repair(fd: int) -> None:
    """Cut off an incomplete line after a crash: its event was never confirmed to anyone."""
    size = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return
    content = os.pread(fd, size, 0)
    os.ftruncate(fd, content.rfind(b"\n") + 1)


def _append(fd: int, event: str, facts: Event) -> Event:
    entry: Event = {**clocks.mark(), "v": words.JOURNAL_SCHEMA, "event": event, **facts}
    line = (json.dumps(entry) + "\n").encode()
    size = os.fstat(fd).st_size
    if os.write(fd, line) != len(line):  # a nearly full disk may store a part
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(fd)
    return entry
