"""One checkpoint of a run, the best or the last by its ledger: whole, and what the ledger tells, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words
from gpurun.agent.files import sync_folder
from gpurun.errors import NOT_AS_TOLD, GpurunError, HostError, UsageError
from gpurun.events import Doing, Moved, Report
from gpurun.fetch.arrivals import Arrivals, Arrived
from gpurun.fetch.destination import Destination, InTheWay, opened, reason
from gpurun.fetch.one_pass import OUTSIDE_SECONDS, PAUSE
from gpurun.fetch.plan import Item, is_inside
from gpurun.fetch.report import no_room
from gpurun.store import run_questions
from gpurun.sync import rsync
from gpurun.sync.retry import run_with_retries

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import CheckpointAnswer, CheckpointFile
    from gpurun.agent.schema.run import RunRecord
    from gpurun.remote.wire import Wire
    from gpurun.store.checkpoint_store import Entry

TRIES = 5  # for a file that is written anew while it comes
BEST, LAST = "best", "last"


@dataclass(frozen=True)
class Came:
    """A checkpoint that is here: `entry` is what the ledger tells of it."""

    run: str
    file: Path
    entry: CheckpointFile | Entry
    unchanged: bool  # it was here already


def fetch_checkpoint(wire: Wire, run: str, which: str, to: Path, *, report: Report) -> Came:
    """Bring the `which` (BEST, LAST, or a SHA-256) checkpoint of `run` into the folder `to`, where a fetch of all puts it.

    Raises GpurunError with EXIT_NOTHING when there is none; when what comes is not what the ledger tells; and what
    `fetch_run` raises.
    """
    with opened(to, run) as destination:
        return _bring(wire, run, which, destination, report)


def _bring(wire: Wire, run: str, which: str, destination: Destination, report: Report) -> Came:
    for attempt in range(TRIES):
        if attempt:
            report(Doing("it was written anew meanwhile; trying again"))
            time.sleep(PAUSE)
        record, entry = _ask(wire, run, which, report)
        destination.comes_from(wire.host, record)
        item = _item(entry, wire.host)
        if destination.is_current(item) and destination.state[item.to]["sha256"] == entry["sha256"]:
            return Came(run, destination.root / destination.state[item.to]["at"], entry, unchanged=True)
        came, said = _pull(wire, destination, item, str(entry["folder"]), report)
        if came is not None and came.sha256 == entry["sha256"]:
            return Came(run, _place(destination, item, came), entry, unchanged=False)
        destination.discard(item.path)
    raise _another(run, entry, said)


def fetch_checkpoint_as(wire: Wire, run: str, which: str, file: Path, *, replace: bool, report: Report) -> Came:
    """Bring it to the path `file`. Another file there is replaced with `replace` alone; else UsageError is raised."""
    _, entry = _ask(wire, run, which, report)
    if is_it(file, entry):
        return Came(run, file, entry, unchanged=True)
    if file.exists() and not replace:
        raise UsageError(f"{file} is there already and is another file", "-y replaces it; or name another one with -o")
    # What breaks off is kept there, for the next time.
    with opened(file.parent / f".{file.name}.gpurun", run) as beside:
        came = _bring(wire, run, which, beside, report)
        came.file.replace(file)
        sync_folder(str(file.parent))
        shutil.rmtree(beside.root, ignore_errors=True)  # under its lock: a second gpurun may wait to bring the same
    return Came(run, file, came.entry, unchanged=False)


def _ask(wire: Wire, run: str, which: str, report: Report) -> tuple[RunRecord, CheckpointFile]:
    report(Doing(f"asking {wire.host} for the {which if which in (BEST, LAST) else 'best'} checkpoint of {run}"))
    answer = run_questions.ask(wire, "checkpoint", {"run": run, "which": which}, [run], timeout=OUTSIDE_SECONDS)
    if answer["checkpoint"] is None:
        raise _none(run, which, answer)
    return answer["run"], answer["checkpoint"]


def _none(run: str, which: str, answer: CheckpointAnswer) -> GpurunError:
    record = answer["run"]
    if answer["count"] and which == BEST:
        what, then = f"nothing was monitored in {run}: no checkpoint of it is the best", f"gpurun fetch --last {run}"
    elif not words.is_over(record):
        what, then = f"{run} has saved no checkpoint yet", f"gpurun status {run} shows how far it is."
    elif record["checkpoints"] is None:
        what = f"{run} reported no checkpoints: it saved none, or does not use Lightning"
        then = f"gpurun fetch {run} brings all that it wrote."
    else:
        what, then = f"{run} has no checkpoint any more", f"gpurun fetch {run} brings all that it wrote."
    return GpurunError(what, then, exit_code=words.EXIT_NOTHING, code=error_codes.NO_CHECKPOINT)


def _item(entry: CheckpointFile, host: str) -> Item:
    """What the host tells, as a file to be fetched. Raises HostError when it would lead elsewhere."""
    name, to, folder = entry["name"], entry["as"], entry["folder"]
    if "/" in name or not is_inside(name, private=True) or not is_inside(to):
        raise _lies(host)
    size, times = entry["size"], (entry["mtime_ns"], entry["ctime_ns"])
    if not folder.startswith("/") or "\0" in folder or type(size) is not int or entry["sha256"] is None:
        raise _lies(host)
    return Item(name, to, size, *times, entry["inode"], None, 0, grows=False, writing=None)


def _lies(host: str) -> HostError:
    return HostError("the host names no file of the run", "this is a bug of gpurun, or not its agent there", where=host)


def _pull(wire: Wire, destination: Destination, item: Item, folder: str, report: Report) -> tuple[Arrived | None, str]:
    """Bring it into staging; its hash, None when it is gone again or was cut short meanwhile, and what rsync complained of."""
    if item.size - destination.staged_bytes() > destination.free():
        raise no_room(destination.root, item.size)
    report(Doing(f"fetching {item.to}"))
    connection = wire.connection

    def dropped() -> None:
        report(Doing("the connection broke off; going on"))
        report(Moved(min(destination.staged_bytes([item]), item.size), item.size))

    try:
        with Arrivals(destination, [item]) as arrivals:
            run_with_retries(
                connection,
                rsync.pull_argv(connection, folder, destination.staging),
                rsync.file_list([os.fsencode(item.path)]),
                lambda seen: report(Moved(min(seen.bytes, item.size), item.size)),
                dropped=dropped,
                accept=(0, 24),
                staged=lambda: destination.staged_bytes([item]),
            )
            return arrivals.finish().get(item.path), ""
    except rsync.RsyncError as error:
        if error.meaning == rsync.DISK_FULL:
            raise no_room(destination.root, item.size) from error
        if error.meaning != rsync.PARTIAL:
            raise
        return None, error.what.splitlines()[1]


def _place(destination: Destination, item: Item, came: Arrived) -> Path:
    try:
        placed = destination.place(item, came.sha256)
    except (InTheWay, OSError) as error:
        raise GpurunError(
            f"{item.to} cannot be written: {reason(error)}",
            "name another folder with -o",
            where=destination.root,
        ) from error
    sync_folder(str((destination.root / placed.at).parent))
    destination.save()
    return destination.root / placed.at


def _another(run: str, entry: CheckpointFile, said: str) -> GpurunError:
    why = f"it could not be read: {said}" if said else "another SHA-256 came"
    return GpurunError(
        f"{entry['path']} of {run} differs from its entry in the checkpoint ledger: {why}, {TRIES} times",
        f"it is written to all the time, or past the training. As it is: gpurun fetch {run} --only '{entry['as']}'",
        where=f"told: {entry['sha256']}",
        code=NOT_AS_TOLD,
    )


def fetched_in(folder: Path, entry: Mapping[str, object]) -> Path | None:
    """The checkpoint that the ledger's entry tells of, where a fetch of all into `folder` has put it; None when it is not there."""
    path = str(entry["path"])
    inside = f"outside{path}" if path.startswith("/") else path
    return folder / inside if is_inside(inside) and is_it(folder / inside, entry) else None


def is_it(file: Path, entry: Mapping[str, object]) -> bool:
    """Return whether the file is the checkpoint that the ledger's entry tells of, byte for byte."""
    try:
        if file.stat().st_size != entry["size"]:
            return False
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == str(entry["sha256"])
    except OSError:
        return False
