"""Runs that were removed from their host: what this laptop's index knows of them, and what was fetched. No host is asked."""

from __future__ import annotations

import functools
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.agent.tracebacks import traceback_in
from gpurun.config.project import Project, find_project
from gpurun.errors import UNKNOWN_RUN, UsageError
from gpurun.fetch import default_folder
from gpurun.remote import answers
from gpurun.store import checkpoint_store, fetched_files, run_names, run_store
from gpurun.store.fetched_files import PRIVATE
from gpurun.store.run_store import RunEntry

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import StatusAnswer
    from gpurun.agent.schema.job import JobSpec

LOG, PREPARE_LOG = "log", "prepare.log"
TAIL = 1 << 13  # bytes of a log that `status` shows the end of
TRACEBACK_WITHIN = 1 << 18  # bytes at the end of a log
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Folder:
    """A folder that a run was fetched into. `record` is gpurun's own part of it; None when that did not come."""

    path: Path
    record: Path | None


def find(word: str | None, project: Project | None) -> RunEntry | None:
    """Return the removed run that `word` means, the newest of the project for None; None when there is none.

    Raises UsageError when `word` may mean several.
    """
    known = run_store.removed_runs()
    if word is None:
        jobs, _ = run_names.of_project(None if project is None else str(project.root), known)
        return jobs[0] if jobs else None
    exact = run_store.find_removed(word)
    if exact is not None:
        return exact
    try:
        return run_names.match(word, known)
    except UsageError as error:
        if error.code != UNKNOWN_RUN:
            raise
    run = checkpoint_store.removed(word)
    return None if run is None else _of_its_checkpoints(run)


def _of_its_checkpoints(run: str) -> RunEntry:
    """A run that an earlier gpurun removed, which kept nothing of it besides its checkpoints."""
    origin = checkpoint_store.of(run).origin
    name, project, host = (str(origin.get(key) or "") for key in ("name", "project", "host"))
    created = origin.get("created")
    return RunEntry(
        run, name, project, None, host, None, created if checkpoint_store.is_number(created) else 0.0, removed=0.0
    )


def sentence(entry: RunEntry) -> str:
    """Say that a run was removed, and where its files are: the one wording for it."""
    when = time.strftime(" on %Y-%m-%d", time.localtime(entry.removed)) if entry.removed else ""
    gone = f"{entry.id} was removed from {entry.host}{when}" if when else f"{entry.id} is not on {entry.host} any more"
    return f"{gone}; {_files(entry)}"


def _files(entry: RunEntry) -> str:
    found = folders(entry)
    if found:
        where = " and ".join(short(folder.path) for folder in found)
        return f"its files are in {where}" if _is_complete(entry) else f"what was fetched of it is in {where}"
    if entry.fetched_to:
        return f"its files were fetched to {short(Path(entry.fetched_to))}, which is not there any more"
    return "none of its files were fetched"


def _is_complete(entry: RunEntry) -> bool:
    """Return whether all of it was fetched, from each host that it was on, and is still there."""
    proofs = [entry.verified.get(host) for host in (entry.host, *entry.left_on)]
    there = all(proof is not None and fetched_files.missing(Path(proof["to"]), proof["stamp"]) == 0 for proof in proofs)
    return entry.all_fetched and there


def short(path: Path) -> str:
    """As a person types it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def refusal(entry: RunEntry) -> UsageError:
    """The error of a verb that needs the run on its host."""
    if entry.record is None:
        return UsageError(sentence(entry), "gpurun which FILE, which knows its checkpoints", code=UNKNOWN_RUN)
    return UsageError(sentence(entry), f"gpurun status {entry.id}", code=UNKNOWN_RUN)


def folders(entry: RunEntry) -> list[Folder]:
    """The folders that the run was fetched into and that are still there, that of its last host first."""
    fetched = [proof["to"] for proof in entry.verified.values()]
    last = entry.verified.get(entry.host)
    places = [
        Path(place)
        for place in (last and last["to"], entry.fetched_to, default_folder(entry, _root_of(Path.cwd())), *fetched)
        if place
    ]
    found = [Folder(place, _record_in(place, entry.id)) for place in dict.fromkeys(places)]
    return [folder for folder in found if folder.record is not None or _holds(folder.path, entry.id)]


@functools.cache
def _root_of(folder: Path) -> Path:
    """The root of the project that `folder` is in, looked for once for a list of runs."""
    return find_project(folder).root


def _holds(folder: Path, run: str) -> bool:
    return bool(_told(str(folder / PRIVATE / "fetch.json")).get("run") == run)


def _record_in(folder: Path, run: str) -> Path | None:
    """`_gpurun` in a fetched folder, or the name beside it that was free."""
    candidates = sorted(folder.glob(f"{words.RECORD_FOLDER}*"))
    return next((place for place in candidates if _told(RunPaths(str(place)).job).get("id") == run), None)


def _told(file: str) -> dict[str, object]:
    try:
        told = json.loads(Path(file).read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def log(entry: RunEntry, attempt: int | None = None) -> tuple[Path | None, Path | None]:
    """The fetched log of an attempt, the last one for None, and what preparing printed; None for what did not come.

    Raises UsageError for an attempt that there was not.
    """
    newest = int(entry.known.get("attempt") or 1)
    wanted = newest if attempt is None else attempt
    if wanted > newest:
        what = f"the run {entry.id} has no attempt {wanted}; its newest is attempt {newest}"
        raise UsageError(what, f"gpurun status {entry.id}")
    for folder in folders(entry):
        if folder.record is None:
            continue
        place = (
            folder.record
            if _last_attempt(folder.record) == wanted
            else Path(RunPaths(str(folder.record), wanted).aside)
        )
        printed, prepared = place / LOG, place / PREPARE_LOG
        if printed.is_file() or prepared.is_file():
            return (printed if printed.is_file() else None), (prepared if prepared.is_file() else None)
    return None, None


def printed(entry: RunEntry, attempt: int | None = None, *, build: bool = False) -> list[Path]:
    """The fetched files that hold what an attempt printed: its log, and what preparing printed where it never started.

    With `build` the latter alone. Raises UsageError for an attempt that there was not.
    """
    files = log(entry, attempt)
    wanted = files[1:] if build else files[:1] if _started(entry, attempt) else files
    return [file for file in wanted if file is not None]


def _started(entry: RunEntry, attempt: int | None) -> bool:
    record = entry.known
    if attempt in (None, record.get("attempt", 1)):
        return record.get("started") is not None
    return any(told["attempt"] == attempt and told.get("started") for told in record.get("attempts") or [])


def _last_attempt(record: Path) -> int:
    """The last attempt on the host that this record came from."""
    number = 1
    try:
        with Path(RunPaths(str(record)).events).open("rb") as lines:
            for line in lines:
                event = json.loads(line) if b'"attempt"' in line and line.endswith(b"\n") else {}
                number = int(event["number"]) if event.get("event") == "attempt" else number
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return number
    return number


def chunks(file: Path, lines: int | None = None) -> Iterator[bytes]:
    """The bytes of a file, or those of its last `lines` lines."""
    with file.open("rb") as content:
        if lines is not None:
            yield from deque(content, maxlen=lines)
            return
        while data := content.read(_BLOCK):
            yield data


def answer(entry: RunEntry) -> StatusAnswer:
    """What is known of the run, in the shape of a host's answer to `status`. Raises UsageError when nothing is."""
    if entry.record is None:
        raise refusal(entry)
    printed, prepared = log(entry)
    record = next((folder.record for folder in folders(entry) if folder.record is not None), None)
    job = entry.job or (_job_in(record) if record else cast("JobSpec", {}))
    known: dict[str, object] = {
        "run": {**entry.record, "live": False},
        "job": {"command": entry.record.get("command") or [], **job},
        "events": [],
        "prepare_tail": _end_of(prepared, TAIL),
        "log_tail": _end_of(printed, TAIL),
        "traceback": traceback_in(_end_of(printed, TRACEBACK_WITHIN)) or None,
        "path": None,
        "environment": _told(RunPaths(str(record)).environment) if record else None,
        "prepared": None,
    }
    return cast("StatusAnswer", known)  # no host has answered: there is no path, and nothing prepared


def _job_in(record: Path) -> JobSpec:
    """The job as it was fetched; empty where it is none: a host wrote it."""
    told = _told(RunPaths(str(record)).job)
    try:
        answers.JOB(told, "")
    except answers.Malformed:
        return cast("JobSpec", {})
    return cast("JobSpec", told)


def _end_of(file: Path | None, size: int) -> str:
    if file is None:
        return ""
    try:
        with file.open("rb") as content:
            content.seek(max(0, os.fstat(content.fileno()).st_size - size))
            return content.read().decode(errors="replace")
    except OSError:
        return ""
