"""What the runs of this laptop ever saved: their ledgers of checkpoints, taken along at each contact with a host.

One file a run beside its entry in the index, small enough to be written anew each time. Of a checkpoint that was replaced or
removed it keeps what was told, and it outlives the run: somebody may have a copy. A job writes its ledger, and a host may
lie: only what has the shape of an entry is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard, cast

from gpurun import locked
from gpurun.agent import ledger
from gpurun.agent import vocabulary as words
from gpurun.agent.files import write_atomically
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.checkpoint import Checkpoint, CheckpointSummary, LedgerEntry, LedgerPiece
    from gpurun.agent.schema.requests import LedgerRequest

MOST = 5000  # checkpoints of one run; the oldest go first
_SUFFIX = ".ledger"
_LONGEST = 4096  # characters of a text in an entry
_LATEST = 1e11  # unix seconds that a clock can show
_TEXTS, _NUMBERS, _FLAGS = ("monitor", "mode"), ("t", "epoch", "step", "value"), ("best", "last")


class _Entry(TypedDict):
    path: str
    sha256: str
    size: int  # bytes
    attempt: int
    best: bool
    last: bool
    gone: bool  # another took its place, or the job removed it
    host: str  # that told of it


class Entry(_Entry, total=False):
    """A checkpoint as it is kept here: what of a line of the ledger had the right type."""

    complete: bool
    monitor: str
    mode: str
    t: float
    epoch: float
    step: float
    value: float


class Commit(TypedDict):
    """What is kept of a run's repository."""

    commit: str | None
    branch: str | None
    dirty: bool | None


class Origin(TypedDict, total=False):
    """Where the checkpoints of a run come from."""

    name: str
    project: str
    host: str
    created: float
    command: list[str]
    args: list[str]
    git: Commit | None


@dataclass
class Kept:
    """Of one run: `read`, bytes of the ledger by the host's id; `entries`, each with the `host` that told of it; those
    with `gone` are there no more.

    `origin` is what `which` tells of the run when the index has forgotten it.
    """

    read: dict[str, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    origin: Origin = field(default_factory=Origin)


def question(runs: Iterable[str]) -> LedgerRequest:
    """The part of a request by which a host adds what is new of these runs' ledgers to its answer."""
    return {"ledgers": {run: kept.read for run in runs if (kept := of(run)).read}}


def update(answer: Mapping[str, Any], host: str) -> None:
    """Keep the ledgers of an answer of `host` to a `question`, of runs that the index has."""
    for run, piece in (answer.get("ledgers") or {}).items():
        with locked.if_it_can(), locked.state():
            _update(run, piece, host)


def _update(run: str, piece: LedgerPiece, host: str) -> None:
    entry = run_store.find(run)
    if entry is None:
        return
    kept = of(run)
    if _is_newer(run):
        return  # a newer gpurun's: it stays as it is
    if piece["from"] > kept.read.get(piece["host_id"], 0):
        return  # the file is gone since it was asked for: the next contact brings it
    if piece["from"] > 0 and piece["to"] <= kept.read.get(piece["host_id"], 0):
        return  # another gpurun took it in meanwhile; from 0 it may be a ledger that was begun anew
    kept.read[piece["host_id"]] = piece["to"]
    kept.entries = fold(kept.entries, piece["lines"], host)[-MOST:]
    kept.origin = origin(entry)
    run_store.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    document = {"schema": words.STORE_SCHEMA, **asdict(kept)}
    write_atomically(str(_file(run)), json.dumps(document).encode(), 0o600)


def of(run: str) -> Kept:
    """What is kept of a run; nothing when there is no such file, or a damaged one."""
    try:
        told = json.loads(_file(run).read_bytes())
        return Kept(told["read"], told["entries"], told["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        return Kept()


def _is_newer(run: str) -> bool:
    try:
        return bool(json.loads(_file(run).read_bytes()).get("schema", 1) > words.STORE_SCHEMA)
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def there(run: str) -> list[Entry]:
    """The checkpoints that the run has, as far as was told."""
    return [entry for entry in of(run).entries if not entry["gone"]]


def find(sha256: str) -> list[tuple[str, Kept, Entry]]:
    """(run, what is kept of it, the entry) of every checkpoint with this content, those that are still there first."""
    kept = {run: of(run) for run in _runs()}
    found = [(run, one, entry) for run, one in kept.items() for entry in one.entries if entry["sha256"] == sha256]
    known = {run for run, _, _ in found}
    found += [match for match in _in_records(sha256) if match[0] not in known]
    return sorted(found, key=lambda match: (match[2]["gone"], not match[2].get("best"), match[0], match[2]["path"]))


def removed(word: str) -> str | None:
    """The run of that id or name that the index has forgotten; None when none is known, or several."""
    found = [run for run in _runs() if (run == word or run.rpartition("-")[0] == word) and run_store.find(run) is None]
    return found[0] if len(found) == 1 else None


def _in_records(sha256: str) -> Iterator[tuple[str, Kept, Entry]]:
    """The best and the last one of a run are in its record, which comes along where its ledger does not: with a log."""
    for entry in run_store.all_runs():
        told = entry.known.get("checkpoints")
        for name, one in (("best", told["best"]), ("last", told["last"])) if told else ():
            sound = _sound({**(one or {}), "complete": True, name: True}, entry.host)
            if sound is not None and sound["sha256"] == sha256:
                yield entry.id, Kept(origin=origin(entry)), sound


def origin(entry: run_store.RunEntry) -> Origin:
    """Where a run comes from, for as long as somebody has one of its checkpoints."""
    record, job = entry.known, entry.known_job
    git = job.get("git") or record.get("git")
    return {
        "name": entry.name,
        "project": entry.project,
        "host": entry.host,
        "created": entry.created,
        "command": job.get("command") or record.get("command") or [],
        "args": job.get("args") or record.get("args") or [],
        "git": {"commit": git.get("commit"), "branch": git.get("branch"), "dirty": git.get("dirty")} if git else None,
    }


def fold(entries: Iterable[Entry], lines: Iterable[LedgerEntry], host: str) -> list[Entry]:
    """`entries` after these lines of the ledger on `host`, in the order in which they were told."""
    known = {(entry["host"], entry["path"], entry["sha256"]): entry for entry in entries}
    current = {entry["path"]: entry for entry in known.values() if entry["host"] == host and not entry["gone"]}
    for line in lines:
        path = line.get("path")
        if line.get("removed") is True and isinstance(path, str) and path in current:
            current.pop(path)["gone"] = True
        entry = _sound(line, host)
        if entry is None:
            continue
        key = (host, entry["path"], entry["sha256"])
        before = current.get(entry["path"])
        if before is not None:
            before["gone"] = True
        known.pop(key, None)
        known[key] = current[entry["path"]] = entry
    return list(known.values())


def _sound(line: Mapping[str, object], host: str) -> Entry | None:
    """The line that `host` told as an entry, with what of it has the right type; None when it tells of no whole checkpoint."""
    path, sha256, size = line.get("path"), line.get("sha256"), line.get("size")
    if not (isinstance(path, str) and 0 < len(path) <= _LONGEST and isinstance(sha256, str)):
        return None
    if line.get("complete") is not True or line.get("removed") or type(size) is not int:
        return None
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        return None
    attempt, t = line.get("attempt"), line.get("t")
    known: dict[str, object] = {"path": path, "sha256": sha256, "size": size, "gone": False, "complete": True}
    known |= {key: line[key] for key in _NUMBERS if is_number(line.get(key))}
    if is_number(t) and not 0 <= t < _LATEST:
        del known["t"]
    known |= {key: text for key in _TEXTS if isinstance(text := line.get(key), str) and len(text) <= _LONGEST}
    known |= {key: line.get(key) is True for key in _FLAGS}
    return cast("Entry", {**known, "attempt": attempt if type(attempt) is int else 1, "host": host})


def is_number(value: Any) -> TypeGuard[float]:
    """A number that can be shown: JSON knows larger ones than a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def best(run: str, at: str | None = None) -> Entry | None:
    """Of all hosts that the run was on: what is the best on each, judged by its value. Of two copies the one on `at`."""
    told: dict[str, list[Entry]] = {}
    for entry in there(run):
        told.setdefault(entry["host"], []).append(entry)
    bests = [one for entries in told.values() if (one := ledger.best(entries)) is not None]
    newest = ledger.last(bests)
    if newest is None:
        return None
    alike = [
        one for one in bests if all(one.get(key) == newest.get(key) for key in _TEXTS) and is_number(one.get("value"))
    ]
    sign = -1.0 if newest.get("mode") == "min" else 1.0
    found = max(alike, key=lambda one: sign * one["value"], default=newest)
    if found["host"] == at:
        return found
    return ledger.of_content(told.get(at or "", []), found["sha256"]) or found


@dataclass(frozen=True)
class Saved:
    """What a run has saved: how many checkpoints on all of its hosts, the last one where it is now, the best of all."""

    count: int
    last: Checkpoint | Entry | None
    best: Checkpoint | Entry | None
    best_on: str | None = None  # the host that the best is on, where that is another than the run's


def saved(run: str, at: str, told: CheckpointSummary | None) -> Saved:
    """What the run, which is on the host `at` now, has saved; `told` are the `checkpoints` of its record."""
    count, last_one, best_one = (told["count"], told["last"], told["best"]) if told else (0, None, None)
    found = best(run, at)
    if found is None or found["host"] == at:  # its host has looked which files are there
        return Saved(count, last_one, best_one or found)
    elsewhere = sum(entry["host"] != at for entry in there(run))
    return Saved(count + elsewhere, last_one, found, found["host"])


def _file(run: str) -> Path:
    if not re.fullmatch(words.RUN_ID, run):
        raise ValueError(run)
    return run_store.folder() / f"{run}{_SUFFIX}"


def _runs() -> list[str]:
    try:
        names = [path.name.removesuffix(_SUFFIX) for path in run_store.folder().iterdir() if path.suffix == _SUFFIX]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if re.fullmatch(words.RUN_ID, name))
