"""Reading a run's log: raw bytes, from an offset, with or without the time of each line."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Iterator, List, Tuple

from . import journal, records, tend
from . import vocabulary as words
from .paths import HostPaths, RunPaths

CHUNK = 1 << 18
TICK = 0.1  # seconds between two looks at a log that is followed
TEND_EVERY = 10.0  # seconds: a follower notices a dead supervisor as any other verb does


class Reader:
    """One file that grows. `offset` is the next byte to be read."""

    def __init__(self, path: str, offset: int):
        self.path = path
        self.offset = offset

    def chunks(self) -> Iterator[Tuple[int, bytes]]:
        """What there is now, as (offset, bytes)."""
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            while True:
                data = file.read(CHUNK)
                if not data:
                    return
                yield self.offset, data
                self.offset += len(data)


def follow(run: RunPaths, out: Any, *, offset: int, prepare_offset: int, times: bool = False) -> None:
    """Send what preparing said, then the log as it grows, and the record with each change of state, until the end."""
    host = HostPaths(os.path.dirname(os.path.dirname(run.root)))
    prepare, log = Reader(run.prepare_log, prepare_offset), Reader(run.log, offset)
    stamper = Stamper(run) if times else None
    seen, tended = -1, time.monotonic()
    while True:
        size = os.stat(run.events).st_size
        state = journal.fold(run)
        if size != seen:
            seen = size
            out.state(records.record_of(run))
        _send(out, "prepare", prepare)
        # The end was journalled before this read of the log: what is read now is all there is.
        _send(out, words.LOG_FILE, log, stamper, whole_lines=state.live)
        if not state.live:
            out.end(records.record_of(run))
            return
        out.beat()
        if time.monotonic() > tended + TEND_EVERY:
            tended = time.monotonic()
            tend.tend_run(host, run)
        time.sleep(TICK)


def show(run: RunPaths, out: Any, *, offset: int, prepare_offset: int, times: bool = False) -> None:
    """Send what there is now."""
    _send(out, "prepare", Reader(run.prepare_log, prepare_offset))
    _send(out, words.LOG_FILE, Reader(run.log, offset), Stamper(run) if times else None)
    out.end(records.record_of(run))


def _send(out: Any, stream: str, reader: Reader, stamper: Any = None, *, whole_lines: bool = False) -> None:
    for offset, data in reader.chunks():
        if stamper is None:
            out.chunk(stream, offset, data)
            continue
        # A line's time is written before it, so that only whole lines are sent.
        cut = data.rfind(b"\n") + 1 if whole_lines else len(data)
        if cut:
            out.chunk(stream, offset, stamper.stamp(offset, data[:cut]))
        if cut < len(data):
            reader.offset = offset + cut
            return


def tail_offset(path: str, lines: int) -> int:
    """The byte at which the last `lines` lines begin."""
    try:
        file = open(path, "rb")  # noqa: SIM115
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
    """The log's size `seconds` ago: what was written since begins there."""
    moment = time.time() - seconds
    offset = 0
    for at, size in sample_times(run):
        if at >= moment:
            break
        offset = size
    return offset


def sample_times(run: RunPaths) -> List[Tuple[float, int]]:
    """(unix time, log size) as the supervisor saw it, about a second apart."""
    try:
        with open(run.log_times) as file:
            rows = [line.split() for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []
    return [(float(row[0]), int(row[1])) for row in rows if len(row) == 2]


class Stamper:
    """Writes before each line when it came, to the second, by the samples of the log's size."""

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
    """Split at newlines alone: a carriage return belongs to its line."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def last_traceback(run: RunPaths, within: int = 1 << 18) -> str:
    """The last Python traceback in the end of the log, or an empty text."""
    text = tail_text(run.log, within)
    at = text.rfind("Traceback (most recent call last):")
    if at < 0:
        return ""
    lines = text[at:].split("\n")
    end = next(
        (n for n, line in enumerate(lines[1:], 1) if line and not line.startswith((" ", "\t"))),
        len(lines) - 1,
    )
    return "\n".join(lines[: end + 1])


def tail_text(path: str, size: int) -> str:
    """The end of a file as text."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def first_offsets(run: RunPaths, request: Dict[str, Any]) -> Tuple[int, int]:
    """Where to begin to read: (log, prepare log)."""
    if request.get("offset") is not None:
        return int(request["offset"]), int(request.get("prepare_offset") or 0)
    past_prepare = _size(run.prepare_log) if _size(run.log) else 0
    if request.get("tail") is not None:
        lines = int(request["tail"])
        if _size(run.log):
            return tail_offset(run.log, lines), past_prepare
        return 0, tail_offset(run.prepare_log, lines)
    if request.get("since") is not None:
        return since_offset(run, float(request["since"])), past_prepare
    return 0, past_prepare


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
