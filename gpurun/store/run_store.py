"""Remember which run is on which host, and what its host last answered about it.

One file a run in the user's data directory. An entry is read, changed and written under the lock of this laptop's state
(`change`), so that two gpurun processes lose nothing of each other's. Most of it can be rebuilt from the hosts (`update`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from gpurun import locked
from gpurun.agent import vocabulary as words
from gpurun.agent.files import write_atomically
from gpurun.store import fetched_files

if TYPE_CHECKING:
    from gpurun.agent.schema.job import JobSpec, Service
    from gpurun.agent.schema.run import Manifest, RunRecord

_REMOVED = ".removed"  # the suffix of the entry of a run that was removed from its host


class Proof(TypedDict):
    """That all that a run wrote on a host was fetched."""

    stamp: str  # what the host said of it when it was listed
    to: str  # the folder that has it


@dataclass(frozen=True)
class RunEntry:
    """What the laptop knows of one run. Times in seconds since 1970; `record` is the RunRecord last seen, at `seen`."""

    id: str
    name: str
    project: str
    project_root: str | None
    host: str
    host_id: str | None
    created: float
    job: JobSpec | None = None
    record: RunRecord | None = None
    seen: float | None = None
    fetched: float | None = None
    fetched_to: str | None = None
    manifest: Manifest | None = None  # of the code as it was submitted from here
    # Hosts that earlier attempts were on: whether what they wrote was fetched; None when that could not be had.
    left_on: Mapping[str, bool | None] = field(default_factory=dict)
    # Of each host that all of it was fetched from.
    verified: Mapping[str, Proof] = field(default_factory=dict)
    maybe_on: str | None = None  # a host that was asked to go on with it, and whose answer never came
    move: str | None = None  # the ask under which it may have begun there (agent/state/moving.py)
    # Hosts besides `host` on which an attempt of it was live when they were last asked: the record of each.
    twins: Mapping[str, RunRecord] = field(default_factory=dict)
    # Hosts on which an attempt that was left behind live, or could not be asked, has ended since: the record of each.
    ended_on: Mapping[str, RunRecord] = field(default_factory=dict)
    removed: float | None = None  # when it was removed from `host`; 0 when nobody knows
    newer: bool = False  # a newer gpurun wrote the entry: it is read as far as it can be, and never written
    more: Mapping[str, object] = field(default_factory=dict)  # what only another version of gpurun knows of it

    @property
    def known(self) -> RunRecord:
        """The record; one without any key, to be read with `get`, where the host never spoke of the run."""
        return self.record or cast("RunRecord", {})

    @property
    def known_job(self) -> JobSpec:
        """The job; one without any key, to be read with `get`, where it was not submitted from here."""
        return self.job or cast("JobSpec", {})

    @property
    def state(self) -> str:
        """The state last seen; `created` when the host never spoke of it."""
        return str(self.record["state"]) if self.record else words.CREATED

    @property
    def ended(self) -> bool:
        return words.is_over(self.record) if self.record else False

    @property
    def all_fetched(self) -> bool:
        """By this laptop, and what earlier attempts wrote on other hosts, too; it may have been written to since."""
        return bool(self.fetched and self.fetched_to) and all(done is not False for done in self.left_on.values())

    @property
    def service(self) -> str | None:
        """The kind of service (`vocabulary.SERVICES`); None for a job."""
        service = self._service
        return service["kind"] if service else None

    @property
    def shown_run(self) -> str | None:
        """The one run that a TensorBoard shows."""
        service = self._service
        return service.get("run") if service else None

    @property
    def _service(self) -> Service | None:
        return (self.known_job if self.job else self.known).get("service")


_FIELDS = tuple(name for name in RunEntry.__dataclass_fields__ if name not in ("newer", "more"))


def folder() -> Path:
    """Where the entries lie. It need not exist."""
    import platformdirs

    return platformdirs.user_data_path("gpurun") / "runs"


def add(job: JobSpec, host: str, manifest: Manifest | None = None) -> RunEntry:
    """Remember a run before its host is first asked, so that a submit that is killed can be found again.

    What is known of it from an earlier submit, which this one repeats, stays. The id must be free (`is_taken`).
    """
    project, git = job["project"], job.get("git")
    kept = job
    if git and (changes := git.get("patch")):
        # A megabyte in every entry would make every look-up slow.
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(str(folder() / f"{job['id']}.patch"), changes.encode("utf-8", "surrogateescape"), 0o600)
        kept = {**job, "git": {**git, "patch": None}}
    entry = RunEntry(
        job["id"],
        job["name"],
        project["name"],
        project["root"],
        host,
        None,
        float(job["created"]),
        job=kept,
        manifest=manifest,
    )
    with locked.state():
        known = _find_to_write(entry.id)
        if known is not None and known.job is not None and known.job.get("token") == job.get("token"):
            entry = replace(known, host=host, job=kept, manifest=entry.manifest)
        _write(entry)
    return entry


def is_taken(run_id: str) -> bool:
    """Return whether a run of this id is known here, or was: what it saved is still known by its id (gpurun/store/checkpoint_store.py)."""
    return any((folder() / f"{run_id}{suffix}").exists() for suffix in (".json", _REMOVED, ".ledger"))


def change(run_id: str, to: Callable[[RunEntry], RunEntry]) -> RunEntry | None:
    """Write what `to` makes of a run's entry, which nobody else changes meanwhile. None when the run is not known."""
    with locked.state():
        entry = _find_to_write(run_id)
        if entry is None:
            return None
        changed = to(entry)
        if changed != entry:
            _write(changed)
        return changed


def patch(run_id: str) -> bytes | None:
    """What the project's tracked files differed in from their commit when the run was submitted from here."""
    try:
        return (folder() / f"{run_id}.patch").read_bytes()
    except FileNotFoundError:
        return None


def update(records: Iterable[RunRecord], host: str, *, now: float | None = None) -> None:
    """Take in RunRecords as `host` answered them. Runs that the laptop did not know get an entry."""
    for record in records:
        if not re.fullmatch(words.RUN_ID, record["id"]):
            continue  # an id is a file's name here: a broken host must not choose another
        if record["state"] == words.UNKNOWN and record.get("here") is not False:
            continue  # its host cannot read it: what was known of it stays
        known = find(record["id"])
        if is_only_listed(known, record, host):
            continue
        if known and known.record == record and known.host == host and known.seen is not None and known.ended:
            continue  # nothing changes about an end; `ps -a` over many runs should not write them all again
        with locked.if_it_can(), locked.state():
            _update(record, host, time.time() if now is None else now)


def _update(record: RunRecord, host: str, now: float) -> None:
    known = _find_to_write(record["id"]) or _known_again(record, host)
    if is_another_run(known, record):
        return
    if is_left_behind(known, record):
        _note_twin(known, record, host)
    elif not _is_older(known, record):
        _write(_with_record(known, record, host, now))


def _known_again(record: RunRecord, host: str) -> RunEntry:
    """An entry for a run that this laptop does not list; if it was removed from here, with what is known of it from before."""
    before = find_removed(record["id"])
    if before is None or before.newer or is_another_run(before, record):
        return RunEntry(
            record["id"], record["name"], record["project"] or "", None, host, None, float(record["created"] or 0.0)
        )
    return replace(
        before,
        host=host,
        host_id=None,
        record=None,
        seen=None,
        left_on={},
        maybe_on=None,
        move=None,
        twins={},
        ended_on={},
        removed=None,
    )


def _is_older(known: RunEntry, record: RunRecord) -> bool:
    """Tell whether this was said before the end of the attempt that is known: an answer may arrive behind a later one.

    Only a run whose upload broke off for good begins anew as the same attempt, by the same submit once more.
    """
    if known.record is None or not known.ended or words.is_over(record):
        return False
    same = record.get("attempt", 1) == known.record.get("attempt", 1)
    return same and record.get("host_id") in (None, known.host_id) and known.record.get("reason") != "sync"


def _with_record(known: RunEntry, record: RunRecord, host: str, now: float) -> RunEntry:
    """The entry once `host` has told this of the run."""
    again = known.record is not None and record.get("attempt", 1) > known.record.get("attempt", 1)
    elsewhere = known.host_id is not None and record.get("host_id") not in (None, known.host_id)
    twins = dict(known.twins)
    if again and elsewhere and known.host != host:  # what it wrote there stays there
        if known.record is not None and not known.ended:  # it was live there: until that host says otherwise
            twins[known.host] = known.record
        known = replace(known, left_on={known.host: _is_fetched(known), **_without(known.left_on, host)})
    twins.pop(host, None)
    ended_on = _not_on(known.ended_on, host)
    settled = host == known.maybe_on and again
    return replace(
        known,
        host=host,
        host_id=record.get("host_id") or known.host_id,
        record=record,
        seen=now,
        # What came of an earlier attempt is not all that there is now.
        fetched=None if again else known.fetched,
        twins=twins,
        ended_on=ended_on,
        maybe_on=None if settled else known.maybe_on,
        move=None if settled else known.move,
    )


def _note_twin(known: RunEntry, record: RunRecord, host: str) -> None:
    """An attempt that was left behind is live after all, or has ended."""
    here = record.get("host_id")  # one machine under two names is one twin
    twins = {name: told for name, told in known.twins.items() if name != host and told.get("host_id") != here}
    ended_on = {name: told for name, told in known.ended_on.items() if name != host and told.get("host_id") != here}
    was_live = (
        len(twins) < len(known.twins) or len(ended_on) < len(known.ended_on) or known.left_on.get(host, True) is None
    )
    if words.is_over(record) and was_live:
        ended_on[host] = record
    elif record["state"] not in (*words.ENDS, words.CREATED, words.SYNCING):  # what only arrives there runs nothing
        twins[host] = record
    if twins != known.twins or ended_on != known.ended_on:
        _write(replace(known, twins=twins, ended_on=ended_on))


def note_gone(run_id: str, host: str) -> None:
    """`host` has answered, and has no live attempt of the run besides the one that the index knows."""
    change(
        run_id,
        lambda entry: replace(entry, twins=_not_on(entry.twins, host), ended_on=_not_on(entry.ended_on, host)),
    )


def note_begun(record: RunRecord, host: str, *, fetched: bool | None, now: float | None = None) -> None:
    """The run went on on `host`: that, what stays where it was, and that nothing is undecided any more, in one write.

    `fetched`: whether what its attempts wrote there is here; None when that could not be had.
    """

    def begun(entry: RunEntry) -> RunEntry:
        if entry.record is not None and entry.record.get("attempt", 1) > record["attempt"]:
            return replace(entry, maybe_on=None, move=None)  # it was told already, and went on since
        former = entry.host
        entry = _with_record(entry, record, host, time.time() if now is None else now)
        left = entry.left_on if former == host else {**entry.left_on, former: fetched}
        return replace(entry, maybe_on=None, move=None, left_on=_without(left, host))

    change(record["id"], begun)


def note_manifest(run_id: str, manifest: Manifest) -> None:
    """The code that was sent in the end: files may change while they are sent."""
    change(run_id, lambda entry: replace(entry, manifest=manifest))


def note_left(run_id: str, host: str, *, fetched: bool | None) -> None:
    """The run goes on elsewhere; what its attempts on `host` wrote stays there until the run is removed."""
    change(run_id, lambda entry: replace(entry, left_on=_without({**entry.left_on, host: fetched}, entry.host)))


def note_maybe(run_id: str, host: str, move: str | None = None) -> None:
    """Before anything is asked of a host that is to go on with the run: under `move` it may begin there."""
    change(run_id, lambda entry: replace(entry, maybe_on=host, move=move))


def note_settled(run_id: str, move: str | None) -> None:
    """It is known that the run never began under `move`, and never will. Another move stays undecided."""
    change(run_id, lambda entry: replace(entry, maybe_on=None, move=None) if entry.move == move else entry)


def _not_on(records: Mapping[str, RunRecord], host: str) -> dict[str, RunRecord]:
    return {name: told for name, told in records.items() if name != host}


def _without(left_on: Mapping[str, bool | None], host: str) -> dict[str, bool | None]:
    return {name: done for name, done in left_on.items() if name != host}


def is_another_run(known: RunEntry | None, record: RunRecord) -> bool:
    """Return whether a host tells of a run that has this id by chance: another laptop drew it."""
    if known is None or known.job is None or known.record is None:
        return False
    told, before = record.get("created"), known.record.get("created")
    return None not in (told, before) and told != before


def is_only_listed(known: RunEntry | None, record: RunRecord, host: str) -> bool:
    """Return whether `host` lists a run that another host runs, whose home it shares, or whose disk it was cloned from."""
    return record.get("here") is False and known is not None and known.record is not None and known.host != host


def is_left_behind(known: RunEntry | None, record: RunRecord) -> bool:
    """Return whether a host tells of an attempt of a run that goes on, or went on, on another host since. It may be live."""
    if known is None or known.record is None or record.get("host_id") in (None, known.host_id):
        return False
    return int(record.get("attempt", 1)) <= int(known.record.get("attempt", 1))


def ids_beginning_with(word: str) -> list[str]:
    """Return the ids of the runs that are remembered and begin with `word`."""
    return [name.removesuffix(".json") for name in _names() if name.startswith(word)]


def find(run_id: str) -> RunEntry | None:
    """The entry of exactly that id, read from its file alone."""
    if not re.fullmatch(words.RUN_ID, run_id):
        return None
    return _read(folder() / f"{run_id}.json")


def _find_to_write(run_id: str) -> RunEntry | None:
    """The entry that is to be changed. Raises OSError where the disk does not give it: it must not be written anew."""
    return _parsed(folder() / f"{run_id}.json")


def all_runs() -> list[RunEntry]:
    """Every run, newest first. A damaged file is passed over: the host has what it said."""
    entries = (_read(folder() / name) for name in _names())
    return sorted((entry for entry in entries if entry), key=lambda entry: (entry.created, entry.id), reverse=True)


def remove(run_id: str) -> None:
    """Forget a run that never began; nothing when it is not known."""
    with locked.state():
        for suffix in (".json", ".patch"):
            (folder() / f"{run_id}{suffix}").unlink(missing_ok=True)


def note_removed(run_id: str, *, now: float | None = None) -> None:
    """Note that a run was removed from its host: it is listed no more, and what is known of it stays (`find_removed`)."""
    with locked.state():
        entry = find(run_id)
        if entry is None:
            return
        _write(replace(entry, removed=time.time() if now is None else now))
        (folder() / f"{run_id}.json").replace(folder() / f"{run_id}{_REMOVED}")


def find_removed(run_id: str) -> RunEntry | None:
    """The entry of exactly that id, of a run that was removed from its host."""
    if not re.fullmatch(words.RUN_ID, run_id):
        return None
    entry = _read(folder() / f"{run_id}{_REMOVED}")
    return None if entry is None else replace(entry, removed=entry.removed or 0.0)


def removed_runs() -> list[RunEntry]:
    """Return the runs that were removed from their hosts and are not listed again, the newest first."""
    entries = map(find_removed, (name.removesuffix(_REMOVED) for name in _names(_REMOVED)))
    found = [entry for entry in entries if entry is not None and find(entry.id) is None]
    return sorted(found, key=lambda entry: (entry.created, entry.id), reverse=True)


def count_removed() -> int:
    """How many there are: by their names, since reading thousands takes a second."""
    listed = {name.removesuffix(".json") for name in _names()}
    return sum(name.removesuffix(_REMOVED) not in listed for name in _names(_REMOVED))


def forget_on(run_id: str, host: str) -> None:
    """The host has been given back: note that what it had of a run is gone, and the run if it was there."""
    with locked.state():
        entry = _find_to_write(run_id)
        if entry is not None and entry.host == host:
            note_removed(run_id)
        elif entry is not None and host in entry.left_on:
            _write(replace(entry, left_on=_without(entry.left_on, host)))


def is_here(run_id: str, host: str | None = None) -> bool:
    """Return whether all that the run wrote has come to this laptop, and every file of it is still where it came to.

    With `host`, what it wrote there alone: it may have gone on from that host to another. Only the host can say whether the run
    was written to since (see gpurun/commands/unfetched.py).
    """
    entry = find(run_id)
    if entry is None:
        return False
    if host is not None and host in entry.left_on:
        return bool(entry.left_on[host]) and _is_complete(entry, host)
    if host is not None:
        return _is_fetched(entry)
    left = [other for other, done in entry.left_on.items() if done]
    return _is_fetched(entry) and entry.all_fetched and all(_is_complete(entry, other) for other in left)


def _is_fetched(entry: RunEntry) -> bool:
    there = bool(entry.fetched and entry.fetched_to and Path(entry.fetched_to).is_dir())
    return there and _is_complete(entry, entry.host)


def _is_complete(entry: RunEntry, host: str) -> bool:
    """What a fetch of an older gpurun brought, without a stamp, cannot be looked at again."""
    proof = entry.verified.get(host)
    if proof is None:
        return True
    return fetched_files.missing(Path(proof["to"]), proof["stamp"]) == 0


def mark_fetched(
    run_id: str, to: str, *, host: str | None = None, stamp: str | None = None, now: float | None = None
) -> None:
    """Note that all that a run wrote (on `host`, if it went on from there to another) has come to the folder `to`.

    `stamp` is what the host said of it when it was listed.
    """
    at = time.time() if now is None else now

    def marked(entry: RunEntry) -> RunEntry:
        if stamp is not None:
            entry = replace(entry, verified={**entry.verified, host or entry.host: {"stamp": stamp, "to": to}})
        if host is not None and host in entry.left_on:
            return replace(entry, left_on={**entry.left_on, host: True})
        return replace(entry, fetched=at, fetched_to=to)

    change(run_id, marked)


def note_moved(run_id: str, before: str, to: str) -> None:
    """Note that the folder `before`, which a run was fetched into, is `to` now."""

    def moved(entry: RunEntry) -> RunEntry:
        proofs: dict[str, Proof] = {
            host: {**proof, "to": to} if proof["to"] == before else proof for host, proof in entry.verified.items()
        }
        return replace(entry, verified=proofs)

    change(run_id, moved)


def _names(suffix: str = ".json") -> list[str]:
    try:
        return [path.name for path in folder().iterdir() if path.suffix == suffix and path.name[0] != "."]
    except FileNotFoundError:
        return []
    except OSError as error:
        locked.note_trouble(error)
        return []


def _read(path: Path) -> RunEntry | None:
    try:
        return _parsed(path)
    except OSError as error:
        locked.note_trouble(error)
        return None


def _parsed(path: Path) -> RunEntry | None:
    """The entry in a file; None where there is none, or a damaged one. Raises OSError."""
    try:
        told = json.loads(path.read_bytes())
        known = {key: told[key] for key in _FIELDS if key in told}
        more = {key: value for key, value in told.items() if key not in (*_FIELDS, "schema")}
        newer = told.get("schema", 1) > words.STORE_SCHEMA
        if newer:  # what is missing must not hide the run
            known = {"id": path.stem, "name": path.stem, "project": "", "host": "", "created": 0.0} | known
            known = {"project_root": None, "host_id": None} | known
        return RunEntry(**known, newer=newer, more=more)
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def _write(entry: RunEntry) -> None:
    """Under the lock of this laptop's state, like the reading before it. An entry of a newer gpurun stays as it is."""
    if entry.newer:
        return
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    told = {key: value for key, value in asdict(entry).items() if key in _FIELDS}
    document = {"schema": words.STORE_SCHEMA, **entry.more, **told}
    write_atomically(str(folder() / f"{entry.id}.json"), json.dumps(document).encode(), 0o600)
