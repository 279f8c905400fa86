"""Resume a run on another host: bring its code and its checkpoint to this laptop, and send them from here.

From the old host while that answers; else from what is here: the project, and what was fetched.
"""

from __future__ import annotations

import glob
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gpurun import fetch
from gpurun.agent import error_codes, ledger, manifest
from gpurun.agent import vocabulary as words
from gpurun.agent.manifest import Entry
from gpurun.agent.paths import RunPaths
from gpurun.commands import resume, runs
from gpurun.commands.submit import Started, list_code
from gpurun.config import hosts
from gpurun.errors import GpurunError, HostError, HostUnreachable, UsageError
from gpurun.events import Confirm, Doing, Moved, Report, Warned
from gpurun.fetch.checkpoint import fetched_in, is_it
from gpurun.fetch.plan import is_inside
from gpurun.job.dependencies import find_dependencies
from gpurun.job.files import FileList
from gpurun.job.spec import for_host
from gpurun.store import run_questions, run_store
from gpurun.sync import rsync, upload
from gpurun.sync.retry import bytes_in, run_with_retries

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import MigrateAnswer, MigratedCheckpoint
    from gpurun.agent.schema.checkpoint import Checkpoint, LedgerEntry, PlacedCheckpoint, Reported
    from gpurun.agent.schema.job import JobSpec
    from gpurun.agent.schema.requests import MigrateRequest, ResumeRequest
    from gpurun.agent.schema.run import AttemptSummary, RunRecord
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

HASHING = 1800.0  # seconds: the host reads the whole checkpoint, and may have to copy it out of a container first
CODE = "snapshot/"


@dataclass(frozen=True)
class Migration:
    """What goes to the other host. `checkpoint` is the ledger's entry, `file` where it lies here."""

    job: JobSpec
    record: RunRecord
    code: FileList
    checkpoint: PlacedCheckpoint | Checkpoint | None
    file: Path | None
    old_host_gone: bool = False


def migrate(entry: RunEntry, target: str, asked: resume.Asked, report: Report, *, follow: bool) -> Started:
    """Let the run go on, on the host `target`, which has it from then on.

    Raises UsageError, what either host refuses, HostUnreachable, RsyncError. Unless both hosts have told how it went, the index
    keeps that the run may be on `target` (`settle`).
    """
    wire = runs.wire_to(target)
    report(Doing(f"asking {target}"))
    here = _host_id(wire, entry)
    entry = runs.resolve(entry.id)  # it may have gone on there already
    if entry.host == target or entry.host_id == here:  # another name of its host: nothing has to travel
        report(Doing(f"asking {target} for the checkpoint"))
        return resume.resume(wire, resume.job_of(entry), asked, follow=follow)
    move = secrets.token_hex(8)
    fetched = run_store.is_here(entry.id, entry.host)
    run_store.note_maybe(entry.id, target, move)
    try:
        with _loaded(entry, target, move, asked, report) as cargo:
            started = _unload(wire, cargo, move, asked, report, follow=follow)
            left = fetched or (None if cargo.old_host_gone else False)
            run_store.note_begun(started.record, target, fetched=left)
            if not cargo.old_host_gone:
                _tell_the_old_host(entry, started.record, target, report)
    except GpurunError as error:
        begun = _settled_after(error, entry, target, move, report)
        if begun is None:
            raise
        report(Warned(f"{target} has begun all the same: {error.what}"))
        return Started(begun, None, earlier=False, fetch=False)
    return started


def _host_id(wire: Wire, entry: RunEntry) -> str:
    """Which machine `wire` leads to. Raises UsageError when an attempt of the run that was left behind is live there."""
    told = run_questions.list_some(wire, [entry.id], timeout=30)
    if entry.host_id is None:
        with suppress(HostUnreachable):
            runs.look([entry])
    twin = runs.resolve(entry.id).twins.get(wire.host)
    if twin is not None:
        raise UsageError(f"{entry.id} is still {twin['state']} on {wire.host}", f"gpurun stop {entry.id}")
    return str(told["host_id"])


def settle(entry: RunEntry, host: str, move: str, report: Report) -> RunRecord | None:
    """Ask `host` whether the run has begun there under `move`: its record there, or None when it never will.

    Both hosts and the index know it then. Raises HostUnreachable when `host` does not answer: nothing is settled.
    """
    answer = runs.wire_to(host).ask("migrate", {"run": entry.id, "settle": move}, timeout=60)
    record = answer["run"]
    if answer["begun"] and record is not None:
        run_store.note_begun(record, host, fetched=run_store.is_here(entry.id, entry.host))
        _tell_the_old_host(entry, record, host, report)
        return record
    give_back(entry, move)
    return None


def give_back(entry: RunEntry, move: str, *, maybe_on: str | None = None) -> None:
    """Tell the host that has the run that it may go on with it; it hears of it later when it is away.

    `maybe_on` is a host that could not be asked whether the run has begun there: `ps`, `stop` and `rm` ask it later.
    """
    with suppress(HostUnreachable, HostError):
        runs.wire_to(entry.host).ask("migrate", {"run": entry.id, "back": move}, timeout=30)
    if maybe_on is not None:
        run_store.note_left(entry.id, maybe_on, fetched=None)
    run_store.note_settled(entry.id, move)


def _settled_after(error: GpurunError, entry: RunEntry, target: str, move: str, report: Report) -> RunRecord | None:
    """Behind a failure: the record on `target` if it has begun after all. What cannot be settled now stays noted."""
    report(Doing(f"asking {target} whether {entry.id} has begun there"))
    try:
        return settle(entry, target, move, report)
    except GpurunError as silent:
        report(Warned(f"{entry.id} may have begun on {target} ({silent.what}); the next gpurun resume asks again"))
        return None


@contextmanager
def _loaded(entry: RunEntry, target: str, move: str, asked: resume.Asked, report: Report) -> Iterator[Migration]:
    import platformdirs

    place = platformdirs.user_cache_path("gpurun")
    place.mkdir(parents=True, exist_ok=True)
    wire = runs.wire_to(entry.host)
    with tempfile.TemporaryDirectory(prefix="carry-", dir=place) as folder:
        told = _ask_the_old_host(wire, entry, target, move, asked, report)
        if told is None:
            yield _from_here(entry, target, asked, report)
        else:
            yield _from_host(wire, told, Path(folder), report)


def _ask_the_old_host(
    wire: Wire, entry: RunEntry, target: str, move: str, asked: resume.Asked, report: Report
) -> MigrateAnswer | None:
    """What it says of the run, which it leaves to `target`; None when it does not answer, or has forgotten it."""
    report(Doing(f"asking {entry.host} for the checkpoint"))
    request: MigrateRequest = {"run": entry.id, "from": asked.checkpoint, "ask": move, "target": target}
    try:
        # Stored: as it was last seen here it may be running, and would pass for a live twin once the run has gone on.
        return run_questions.ask(wire, "migrate", request, [entry.id], timeout=HASHING)
    except HostUnreachable as error:
        report(Warned(f"{entry.host} does not answer ({error.what}); going on from what is here"))
    except HostError as error:
        if error.code != error_codes.NO_RUN:
            raise
        report(Warned(f"{entry.host} has no run {entry.id} any more; going on from what is here"))
    return None


def _tell_the_old_host(entry: RunEntry, record: RunRecord, target: str, report: Report) -> None:
    """It has left the run to `target`, and refuses to go on with it until it hears more: nothing depends on this."""
    try:
        runs.wire_to(entry.host).ask("migrate", {"run": entry.id, "to": target, "attempt": record["attempt"]})
    except GpurunError as error:
        report(Warned(f"{entry.host} could not be told that {record['id']} is on {target} now: {error.what}"))


# From the old host.


def _from_host(wire: Wire, told: MigrateAnswer, folder: Path, report: Report) -> Migration:
    """Bring code and checkpoint into `folder`; both are what the host tells, byte for byte, or HostError is raised."""
    listed = [Entry(os.fsencode(p), k, s, m, os.fsencode(t)) for p, k, s, m, t in told["snapshot"]]
    if not all(is_inside(os.fsdecode(entry.path), private=True) for entry in listed):
        raise _lies(wire, "its list of the code leads out of it")
    checkpoint = told["checkpoint"]
    total = sum(entry.size for entry in listed) + (checkpoint["size"] or 0 if checkpoint else 0)
    names = [CODE.encode() + entry.path for entry in listed if entry.kind == "f"]
    (folder / CODE).mkdir()
    _pull(wire, told["root"], folder, names, total, report)
    for entry in listed:
        if entry.kind == "l":
            link = folder / CODE / os.fsdecode(entry.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.fsdecode(entry.target))
    came = manifest.walk(str(folder / CODE))
    if manifest.digest(came) != manifest.digest(listed):
        raise _lies(wire, "the code that came is not what it listed")
    file = _pull_checkpoint(wire, checkpoint, folder, total, report) if checkpoint else None
    code = FileList(folder / CODE, tuple(came))
    assert told["run"] is not None  # looked at by remote/answers.py
    return Migration(told["job"], told["run"], code, checkpoint, file)


def _pull_checkpoint(wire: Wire, checkpoint: MigratedCheckpoint, folder: Path, total: int, report: Report) -> Path:
    name = str(checkpoint["name"])
    if not is_inside(name) or "/" in name:
        raise _lies(wire, "the checkpoint's name leads out of its folder")
    (folder / "checkpoint").mkdir()
    _pull(wire, str(checkpoint["folder"]), folder / "checkpoint", [os.fsencode(name)], total, report)
    file = folder / "checkpoint" / name
    if not is_it(file, checkpoint):
        raise _lies(wire, f"the checkpoint {checkpoint['path']} did not come whole")
    return file


def _pull(wire: Wire, source: str, to: Path, names: Sequence[bytes], total: int, report: Report) -> None:
    report(Doing(f"bringing it from {wire.host}"))
    argv = rsync.pull_argv(wire.connection, source, to, code=True)
    if names:
        run_with_retries(
            wire.connection,
            argv,
            rsync.file_list(names),
            lambda at: report(_moved(at, total)),
            staged=lambda: bytes_in(to),
        )


def _lies(wire: Wire, what: str) -> HostError:
    return HostError(what, "try again; somebody may have changed the run's files meanwhile", where=wire.host)


# From what is here.


def _from_here(entry: RunEntry, target: str, asked: resume.Asked, report: Report) -> Migration:
    """The project as it is here, and a checkpoint that was fetched. Raises UsageError for what is not here."""
    if entry.job is None or not Path(entry.job["project"]["root"]).is_dir():
        raise UsageError(
            f"the code of {entry.id} is on {entry.host} alone: it was not submitted from here",
            f"try again when {entry.host} answers, or from the laptop that submitted it",
        )
    record = entry.known
    if not entry.ended:
        seen = f"{entry.id} was {entry.state} when {entry.host} was last seen"
        report(Confirm(f"{seen}. If it still is, it will run twice. Go on?"))
    loaded = resume.load(entry.job, asked, target)
    code = list_code(loaded)
    if code.manifest() != entry.manifest:
        report(Confirm(f"The project has changed since {entry.id} was submitted. Go on with the code as it is now?"))
    checkpoint, file = _fetched(entry, asked.checkpoint)
    saved = record.get("checkpoints")
    known = saved["last"] if saved else None
    if checkpoint is None and known:
        report(Confirm(f"Its checkpoint {known['path']} was never fetched. Start from the beginning?"))
    elif checkpoint and known and (known.get("step") or 0) > (checkpoint.get("step") or 0):
        newer = f"{entry.host} has a newer checkpoint (step {known['step']}) that was never fetched"
        report(Warned(f"{newer}; this one is of step {checkpoint.get('step')}"))
    return Migration(_with_patch(entry.job), record, code, checkpoint, file, old_host_gone=True)


def _with_patch(job: JobSpec) -> JobSpec:
    """Return the job with its git patch, which the run store keeps in a file of its own."""
    patch = run_store.patch(job["id"])
    git = job.get("git")
    if patch is None or not git:
        return job
    return {**job, "git": {**git, "patch": patch.decode("utf-8", "surrogateescape")}}


def _fetched(entry: RunEntry, wanted: str | None) -> tuple[Checkpoint | None, Path | None]:
    """The newest whole checkpoint among what was fetched, or the one that is `wanted`. Raises UsageError for that."""
    attempt = entry.known.get("attempt", 1)
    listed = {(one["path"], one.get("sha256")): one for folder in _folders(entry) for one in _ledger(folder, entry)}
    told = list(listed.values())
    best = ledger.best(told)
    order = sorted(ledger.newest_first(told), key=lambda one: one.get("attempt", 1) != attempt)
    if wanted == "best":
        order = [best] if best else []
    elif wanted not in (None, "last"):
        order = [one for one in order if PurePosixPath(one["path"]) == PurePosixPath(str(wanted))]
    for one in order:
        for folder in _folders(entry):
            file = fetched_in(folder, one)
            if file is not None:
                return ledger.brief(one), file.resolve()
    if wanted is not None:
        raise UsageError(
            f"the checkpoint that --from {wanted} means was not fetched, and {entry.host} does not answer",
            f"without --from, {entry.id} goes on from the newest one that is here",
        )
    return None, None


def _folders(entry: RunEntry) -> list[Path]:
    """Where a fetch has put what the run wrote, on each of its hosts: what came from a former one was moved aside."""
    folders = [Path(entry.fetched_to)] if entry.fetched_to else []
    folders.append(fetch.default_folder(entry, Path.cwd()))
    aside = [beside for folder in folders for beside in sorted(folder.parent.glob(f"{glob.escape(folder.name)}-on-*"))]
    return list(dict.fromkeys([*folders, *aside]))


def _ledger(folder: Path, entry: RunEntry) -> list[LedgerEntry | Checkpoint]:
    """The checkpoints that the fetched ledger tells of, and those of the record that the host last gave."""
    listed = ledger.read(str(folder / words.RECORD_FOLDER / words.LEDGER_FILE))
    known = entry.known.get("checkpoints")
    return [*listed, *(one for one in ((known["best"], known["last"]) if known else ()) if one)]


# To the new host.


def _unload(wire: Wire, cargo: Migration, move: str, asked: resume.Asked, report: Report, *, follow: bool) -> Started:
    """Prepare the run there, send code and checkpoint, and begin its next attempt."""
    host = hosts.read().get(wire.host)
    loaded = resume.load(cargo.job, asked, wire.host)
    more = {*host.env, *(line.partition("=")[0] for line in asked.env or ())}
    env = resume.environment(cargo.job, loaded, more)
    gpus = None if asked.gpus is None else loaded.spec.gpus
    job = for_host(cargo.job, host, env, gpus)
    size = cargo.checkpoint["size"] or 0 if cargo.checkpoint else 0
    report(Doing(f"asking {wire.host}"))
    prepared = wire.ask("prepare", {"job": job, "total_bytes": cargo.code.bytes + size}, timeout=60)
    fresh = prepared["run"]["state"] in (words.CREATED, words.SYNCING)
    report(Doing(f"sending to {wire.host}"))
    if fresh and cargo.code.count:
        _push(wire, cargo.code, prepared["snapshot"], report, link_dest=prepared["link_dest"])
    if cargo.file is not None:
        _push(wire, _alone(cargo.file), RunPaths.of_snapshot(prepared["snapshot"]).carried, report)
    request: ResumeRequest = {
        **resume.question(cargo.job, asked, loaded, env),
        "ask": move,
        "from": None,
        "manifest": cargo.code.manifest() if fresh else None,
        "carried": {
            "checkpoint": _carried(cargo),
            "attempt": cargo.record.get("attempt", 1),
            "earlier": _attempts_so_far(cargo.record),
            "progress": _progress(cargo.record),
        },
    }
    report(Doing(f"starting {job['id']}"))
    if _needs_agent(cargo, job):
        wire, follow = replace(wire, connection=wire.connection.with_agent()), True
    return resume.ask(wire, request, follow=follow)


def _moved(at: rsync.Progress, total: int) -> Moved:
    return Moved(at.bytes, fraction=min(at.bytes / max(total, 1), 1.0), rate=at.rate)


def _push(wire: Wire, files: FileList, to: str, report: Report, link_dest: Sequence[str] = ()) -> None:
    upload.push(wire.connection, files, to, link_dest, progress=lambda at: report(_moved(at, files.bytes)))


def _alone(file: Path) -> FileList:
    entry = manifest.entry_of(os.fsencode(file.name), file.lstat(), os.fsencode(file))
    assert entry is not None
    return FileList(file.parent, (entry,))


def _carried(cargo: Migration) -> PlacedCheckpoint | None:
    if cargo.checkpoint is None or cargo.file is None:
        return None
    return {**ledger.brief(cargo.checkpoint), "file": f"carried/{cargo.file.name}"}


def _attempts_so_far(record: RunRecord) -> list[AttemptSummary]:
    last: AttemptSummary = {
        "attempt": record.get("attempt", 1),
        "state": record.get("state"),
        "reason": record.get("reason"),
        "exit_code": record.get("exit_code"),
        "message": record.get("message"),
        "started": record.get("started"),
        "ended": record.get("ended"),
        "ran": record.get("ran"),
    }
    return [*record.get("attempts", []), last]


def _progress(record: RunRecord) -> Reported | None:
    """What the training had reached, as a line of its plugin's: known on the new host too until it tells more there."""
    told = record.get("progress")
    return {**told, "metrics": record.get("metrics") or {}} if isinstance(told, dict) else None


def _needs_agent(cargo: Migration, job: JobSpec) -> bool:
    """Return whether dependencies come over git+ssh: the new host has to install them, with the laptop's SSH agent."""
    asked = job["dependencies"]
    return asked is not None and find_dependencies(cargo.code, asked["file"]).needs_agent
