"""Read a run's log: raw bytes, from an offset, with or without the time of each line."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator, List, Optional, Tuple

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import open_regular
from ..paths import HostPaths, RunPaths
from ..state import journal
from ..tracebacks import traceback_in
from . import reconcile, records

if TYPE_CHECKING:
    from ..frames import Frames
    from ..schema.requests import LogsRequest

CHUNK = 1 << 18
TICK = 0.1  # seconds between two checks of a followed log
RECONCILE_EVERY = 10.0  # seconds: a follower detects a dead supervisor as any other verb does


class Reader:
    """Read one file that grows. `offset` is the next byte to read.

    An open file stays the same file, even when it is moved.
    """

    def __init__(self, offset: int):
        self.offset = offset
        self.file: Optional[BinaryIO] = None

    def open(self, path: str) -> bool:
        """Open the file. Return False when it is already open, or does not exist yet."""
        if self.file is not None:
            return False
        try:
            self.file = open_log(path)
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def chunks(self) -> Iterator[Tuple[int, bytes]]:
        """Yield the present content as (offset, bytes)."""
        if self.file is None:
            return
        while True:
            self.file.seek(self.offset)
            data = self.file.read(CHUNK)
            if not data:
                return
            yield self.offset, data
            self.offset += len(data)


def open_log(path: str) -> BinaryIO:
    """Open a log, in whose place the job may put anything.

    Raises FileNotFoundError, and AgentError for anything but a regular file.
    """
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        no_file = error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO)
        why = "a link, a folder or a pipe is in its place" if no_file else os.strerror(error.errno or 0)
        what = "gpurun cannot read the log: " + why
        raise AgentError(
            error_codes.LOG_UNREADABLE, what, "gpurun shell shows what is in its place", where=path
        ) from error


class _AttemptLog:
    """Read the output of one attempt, of its preparation and then of its job, wherever the files are now."""

    def __init__(self, run: RunPaths, number: int, offset: int, prepare_offset: int, times: bool, build: bool = False):
        self.run, self.number, self.build = run, number, build
        self.prepare, self.log = Reader(prepare_offset), Reader(offset)
        self.stamper = Stamper(run) if times else None

    def send(self, out: Frames, state: journal.Run, *, whole_lines: bool) -> None:
        """Send everything new. `state` was read before this call: the log of an end in it is complete."""
        place = place_of(self.run, self.number, state)
        opened = [
            reader for reader, path in ((self.prepare, place.prepare_log), (self.log, place.log)) if reader.open(path)
        ]
        if opened and place is self.run and journal.fold(self.run).attempt != self.number:
            for reader in opened:  # the next attempt began at this moment: these are its files
                reader.close()
        if self.stamper is not None:
            self.stamper.run = place
        _send(out, "prepare", self.prepare, self.number)
        if not self.build:
            _send(out, words.LOG_FILE, self.log, self.number, self.stamper, whole_lines=whole_lines)

    def close(self) -> None:
        self.prepare.close()
        self.log.close()


def place_of(run: RunPaths, number: int, state: journal.Run) -> RunPaths:
    """Return where the files of an attempt are. Raises AgentError when there was no such attempt."""
    if not 1 <= number <= state.attempt:
        what = "the run %s has no attempt %d; its newest is attempt %d" % (run.id, number, state.attempt)
        raise AgentError(error_codes.NO_ATTEMPT, what, "gpurun status " + run.id, exit_code=words.EXIT_USAGE)
    if number == state.attempt:
        return run
    place = run.of_attempt(number)
    if not os.path.isdir(place.aside):
        what = "attempt %d of the run %s was on another host" % (number, run.id)
        raise AgentError(error_codes.ATTEMPT_ELSEWHERE, what, "gpurun status " + run.id, exit_code=words.EXIT_USAGE)
    return place


def follow(
    run: RunPaths, out: Frames, *, offset: int, prepare_offset: int, times: bool = False, number: Optional[int] = None,
    build: bool = False,
) -> None:  # fmt: skip
    """Send the output of the preparation, then the log as it grows, and the record with each change of state, until the
    end.

    Start with attempt `number` (default: the present one), and continue with those after it.
    """
    host = HostPaths(os.path.dirname(os.path.dirname(run.root)))
    attempt = _AttemptLog(run, number or journal.fold(run).attempt, offset, prepare_offset, times, build)
    size_seen, reconciled = -1, time.monotonic()
    while True:
        size = os.stat(run.events).st_size
        state = journal.fold(run)
        if state.attempt > attempt.number:
            attempt.send(out, state, whole_lines=False)
            attempt.close()
            attempt = _AttemptLog(run, attempt.number + 1, 0, 0, times, build)
            continue
        # The end was journalled before this read of the log, so this read is the last.
        attempt.send(out, state, whole_lines=state.live)
        if size != size_seen:  # after the output until then: a reader that waits for a state has all of it
            size_seen = size
            out.state(records.record_of(run))
        if not state.live:
            out.end(records.record_of(run))
            return
        out.beat()
        if time.monotonic() > reconciled + RECONCILE_EVERY:
            reconciled = time.monotonic()
            reconcile.reconcile_run(host, run)
        time.sleep(TICK)


def show(
    run: RunPaths, out: Frames, *, offset: int, prepare_offset: int, times: bool = False, number: Optional[int] = None,
    build: bool = False,
) -> None:  # fmt: skip
    """Send the present output of one attempt (default: the present one)."""
    state = journal.fold(run)
    attempt = _AttemptLog(run, number or state.attempt, offset, prepare_offset, times, build)
    attempt.send(out, state, whole_lines=False)
    out.end(records.record_of(run))


def _send(
    out: Frames, stream: str, reader: Reader, attempt: int, stamper: Any = None, *, whole_lines: bool = False
) -> None:
    for offset, data in reader.chunks():
        if stamper is None:
            out.chunk(stream, offset, data, attempt)
            continue
        # A line's time is written before it, so only complete lines are sent.
        cut = data.rfind(b"\n") + 1 if whole_lines else len(data)
        if cut:
            out.chunk(stream, offset, stamper.stamp(offset, data[:cut]), attempt)
        if cut < len(data):
            reader.offset = offset + cut
            return


def tail_offset(path: str, lines: int) -> int:
    """Return the offset at which the last `lines` lines begin."""
    try:
        file = open_log(path)
    except FileNotFoundError:
        return 0
    with file:
        end = position = file.seek(0, os.SEEK_END)
        wanted = lines
        while position > 0:
            step = min(CHUNK, position)
            position -= step
            file.seek(position)
            data = file.read(step)
            at = len(data) - 1 if position + step == end and data.endswith(b"\n") else len(data)
            while wanted > 0:
                at = data.rfind(b"\n", 0, at)
                if at < 0:
                    break
                wanted -= 1
            if wanted == 0:
                return position + at + 1
    return 0 if lines else end


def since_offset(run: RunPaths, seconds: float) -> int:
    """Return the log's size `seconds` ago: everything after it is newer."""
    moment = time.time() - seconds
    offset = 0
    for at, size in sample_times(run):
        if at >= moment:
            break
        offset = size
    return offset


def sample_times(run: RunPaths) -> List[Tuple[float, int]]:
    """Return (unix time, log size) as the supervisor recorded them, about once a second."""
    try:
        with open(run.log_times) as file:
            rows = [line.split() for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []
    return [(float(row[0]), int(row[1])) for row in rows if len(row) == 2]


class Stamper:
    """Write before each line when it came, to the second, from the samples of the log's size."""

    def __init__(self, run: RunPaths):
        self.run = run
        self.samples = sample_times(run)
        self.at = 0

    def stamp(self, offset: int, data: bytes) -> bytes:
        stamped = []
        for line in _lines(data):
            stamped.append(self._time_of(offset + len(line)) + line)
            offset += len(line)
        return b"".join(stamped)

    def _time_of(self, end: int) -> bytes:
        while True:
            while self.at < len(self.samples) and self.samples[self.at][1] < end:
                self.at += 1
            if self.at < len(self.samples):
                moment = self.samples[self.at][0]
                break
            fresh = sample_times(self.run)
            if len(fresh) == len(self.samples):  # written within the last second, not sampled yet
                moment = time.time()
                break
            self.samples = fresh
        return time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(moment)).encode()


def _lines(data: bytes) -> List[bytes]:
    """Split only at newlines: a carriage return belongs to its line."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def last_traceback(run: RunPaths, within: int = 1 << 18) -> str:
    """Return the last Python traceback at the end of the log, or an empty text."""
    return traceback_in(tail_text(run.log, within))


def tail_text(path: str, size: int) -> str:
    """Return the end of a file as text; empty when there is no regular file."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def first_offsets(run: RunPaths, request: LogsRequest) -> Tuple[int, int]:
    """Return the offsets at which reading starts: (log, prepare log)."""
    offset, lines, since = request.get("offset"), request.get("tail"), request.get("since")
    if offset is not None:
        return offset, request.get("prepare_offset") or 0
    if request.get("build"):
        return 0, tail_offset(run.prepare_log, lines) if lines is not None else 0
    past_prepare = _size(run.prepare_log) if _size(run.log) else 0
    if lines is not None:
        if _size(run.log):
            return tail_offset(run.log, lines), past_prepare
        return 0, tail_offset(run.prepare_log, lines)
    if since is not None:
        return since_offset(run, since), past_prepare
    return 0, past_prepare


def _size(path: str) -> int:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
