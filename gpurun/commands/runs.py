"""Questions about runs that exist: which host has them, and how they are."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpurun.agent import vocabulary as words
from gpurun.config import hosts
from gpurun.errors import UNKNOWN_RUN, ContactLost, GpurunError, HostUnreachable, UsageError
from gpurun.store import checkpoint_store, run_names, run_questions, run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import PsAnswer, StatusAnswer
    from gpurun.agent.schema.requests import PsRequest
    from gpurun.agent.schema.run import RunRecord
    from gpurun.config.hosts import HostProfile
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

PAGE = 200  # ended runs of one answer to `ps`
PATIENCE = 2.0  # seconds that `ps` gives each of several hosts


@dataclass(frozen=True)
class HostRuns:
    """What `ps` learned of one host: its `answer`, or why there is none and what was known before."""

    host: str
    answer: PsAnswer | None
    failure: GpurunError | None
    known: tuple[RunEntry, ...]  # of this host, as last seen


def wire_to(host: str, **options: Any) -> Wire:
    """A wire to the host of that name. Nothing is opened."""
    from gpurun.remote.wire import connect

    return connect(hosts.read().get(host), **options)


def resolve(word: str | None, *, removed: bool = False, live: bool = False) -> RunEntry:
    """The run that `word` means; the newest of this project for None.

    With `removed`, also one that was removed from its host (its `removed` is set); with `live`, of several the only live one.
    Raises UsageError.
    """
    from gpurun.commands import removed_runs
    from gpurun.config.project import find_project

    project = find_project()
    gone = run_store.find_removed(word) if word is not None and run_store.find(word) is None else None
    if gone is None:
        try:
            return run_names.resolve(word, project, live=live)
        except UsageError as error:
            wanted = error.code == UNKNOWN_RUN and (removed or word is not None)
            gone = removed_runs.find(word, project) if wanted else None
            if gone is None:
                raise
    if not removed:
        raise removed_runs.refusal(gone)
    return gone


def resolve_all(names: Sequence[str] | None, *, removed: bool = False, live: bool = False) -> list[RunEntry]:
    """Each run once, in the order in which they were named; the newest of this project without names. See `resolve`."""
    wanted: Sequence[str | None] = names or [None]
    entries = [resolve(word, removed=removed, live=live) for word in wanted]
    return list({entry.id: entry for entry in entries}.values())


def newest(count: int) -> list[RunEntry]:
    """The newest jobs of this project, removed ones too, the newest first. Raises UsageError when it has fewer."""
    from gpurun.config.project import find_project

    project = find_project()
    known = sorted([*run_store.all_runs(), *run_store.removed_runs()], key=lambda entry: entry.created, reverse=True)
    found, _ = run_names.of_project(str(project.root), known)
    if len(found) < count:
        raise UsageError(
            f"fewer than {count} runs of the project {project.name} are known here",
            "\n".join(filter(None, [run_names.in_a_folder_above(project), "name them; `gpurun ps -a` lists all runs"])),
            where=project.root,
        )
    return found[:count]


def by_host(entries: Iterable[RunEntry]) -> dict[str, list[str]]:
    """Run ids, a list for each host."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.host, []).append(entry.id)
    return found


def hosts_of_interest(*, all_runs: bool) -> list[HostProfile]:
    """The hosts that were added, and those where runs of ours are live (or were, with `all_runs`); else that of GPURUN_HOST."""
    known = hosts.read()
    names = [*known.hosts]
    for entry in run_store.all_runs():
        if all_runs or not entry.ended or entry.twins:
            names += [entry.host, *entry.twins, *(entry.ended_on if all_runs else ())]
        if entry.maybe_on is not None:
            names.append(entry.maybe_on)
    found = [known.get(name) for name in dict.fromkeys(names)]
    return found or ([hosts.choose()] if os.environ.get("GPURUN_HOST") else [])


def list_runs(which: Sequence[HostProfile], request: PsRequest) -> list[HostRuns]:
    """Ask `ps` of all these hosts side by side. One alone may take its time, and ask for a password."""
    known = run_store.all_runs()

    def ask(host: HostProfile) -> HostRuns:
        from gpurun.remote.wire import connect

        ours = tuple(filter(None, (_as_seen_on(host.name, entry) for entry in known)))
        asked: PsRequest = {
            **request,
            **checkpoint_store.question(entry.id for entry in ours if request.get("all") or not entry.ended),
        }
        try:
            if len(which) == 1:
                answer = _patient_listing(connect(host), asked)
            else:
                answer = _listing(connect(host, interactive=False), asked, PATIENCE)
        except GpurunError as error:
            return HostRuns(host.name, None, error, ours)
        known_ids = {entry.id for entry in ours}
        for entry in known:
            if (host.name in entry.twins or (host.name in entry.ended_on and request.get("all"))) and all(
                r["id"] != entry.id for r in answer["runs"]
            ):
                run_store.note_gone(entry.id, host.name)
        mine = getpass.getuser()
        run_questions.store(answer, host.name, only=lambda r: r["owner"] == mine or r["id"] in known_ids)
        answer["runs"] = list(filter(None, (_shown(r, host.name) for r in answer["runs"])))
        return HostRuns(host.name, answer, None, ours)

    if len(which) == 1:  # in this thread, where Ctrl-C ends it at once
        return [ask(which[0])]
    with ThreadPoolExecutor(max_workers=max(len(which), 1)) as pool:
        return list(pool.map(ask, which))


def _patient_listing(wire: Wire, asked: PsRequest) -> PsAnswer:
    """Return the answer of the only host that is asked. It may ask a person, and a host that is only slow has its time.

    An open connection that stays silent is often dead, as after the laptop's sleep: then a new one is tried, for a moment too.
    """
    if wire.connection.is_warm:
        with suppress(ContactLost):
            return _listing(wire, asked, PATIENCE)
        wire.let_go(within=PATIENCE)
        if not wire.connection.is_warm:
            try:
                return _listing(wire.quiet(), asked, PATIENCE)
            except ContactLost:
                raise
            except HostUnreachable:
                pass  # it answers, and wants a person, or there is something to mend
    return _listing(wire, asked, None)


def _shown(record: RunRecord, host: str) -> RunRecord | None:
    """The record of a listing, with whether it is of an attempt that was left behind; None when it is not to be listed.

    Of a run that went on on another host since, that one tells. But an attempt that was left there live is listed too, also
    when it has ended meanwhile.
    """
    entry = run_store.find(record["id"])
    if run_store.is_only_listed(entry, record, host):
        return None
    behind = run_store.is_left_behind(entry, record)
    if behind and not record["live"] and (entry is None or host not in entry.ended_on):
        return None
    return {**record, "left_behind": behind}


def _listing(wire: Wire, asked: PsRequest, within: float | None) -> PsAnswer:
    """The answer to `ps`, put together from pages: a host that has thousands of old runs takes long to tell of all."""
    answer = wire.ask("ps", {**asked, "limit": PAGE}, within=within)
    known, more = {record["id"] for record in answer["runs"]}, answer.get("more")
    while more is not None:
        page = wire.ask("ps", {**asked, "gpus": False, "limit": PAGE, "after": more}, within=within)
        answer["ledgers"].update(page["ledgers"])
        fresh = [record for record in page["runs"] if record["id"] not in known]
        known.update(record["id"] for record in fresh)
        answer["runs"] = [*fresh, *answer["runs"]]
        more = page.get("more") if fresh else None
    answer["runs"].sort(key=lambda record: record["created"] or 0.0)
    return answer


def _as_seen_on(host: str, entry: RunEntry) -> RunEntry | None:
    """The entry, with what that host last told of the run; None when it is not known to have one of its attempts."""
    if entry.host == host:
        return entry
    told = entry.twins.get(host) or entry.ended_on.get(host)
    return replace(entry, host=host, record={**told, "left_behind": True}) if told is not None else None


def twins(entry: RunEntry) -> list[RunEntry]:
    """The run's other attempts that are live, each as an entry of its own host; `seen` is None where that does not answer.

    Asked are the hosts that told of one, those that could not be asked when the run went on from them, and the one that may have
    gone on with it, a moment each.
    """
    found = []
    silent = [name for name, done in entry.left_on.items() if done is None]
    for host in dict.fromkeys([*entry.twins, *silent, *filter(None, [entry.maybe_on])]):
        try:
            answer = run_questions.list_some(wire_to(host, interactive=False), [entry.id], within=PATIENCE)
        except GpurunError:
            answer = None
        if answer is not None and not answer["runs"]:
            run_store.note_gone(entry.id, host)
        now = run_store.find(entry.id) or entry
        if host in now.twins:
            seen = None if answer is None else time.time()
            found.append(replace(now, host=host, record=now.twins[host], seen=seen))
        elif now.host == host != entry.host and not now.ended:  # it has gone on with the run
            found.append(now)
    return found


def status(entry: RunEntry) -> StatusAnswer:
    """The agent's answer to `status`."""
    return run_questions.ask(wire_to(entry.host), "status", {"run": entry.id}, [entry.id])


def answers(host: str) -> bool:
    """Return whether it answers at once, without a word to anybody."""
    try:
        wire_to(host, interactive=False).ask("ps", {"ids": []}, within=PATIENCE)
    except GpurunError:
        return False
    return True


def look(entries: Iterable[RunEntry]) -> None:
    """Ask the hosts how these runs are now, for the index."""
    entries = list(entries)
    for host, ids in by_host(entries).items():
        run_questions.list_some(wire_to(host), ids, timeout=30)
    ask_maybe(entries)


def ask_maybe(entries: Iterable[RunEntry]) -> None:
    """Ask the hosts that may have gone on with these runs, for the index."""
    for entry in entries:
        if entry.maybe_on is not None:
            with suppress(GpurunError):  # it may have gone on with the run, and then that one tells
                wire = wire_to(entry.maybe_on, interactive=False)
                run_questions.list_some(wire, [entry.id], within=PATIENCE)


def refuse_live(entries: Sequence[RunEntry]) -> None:
    """Raise UsageError when one was live when it was last seen."""
    for entry in entries:
        if entry.record is not None and entry.state == words.UNKNOWN:
            what = entry.record.get("message") or f"nobody knows whether {entry.id} is live"
            raise UsageError(what, f"when its machine is gone for good: gpurun stop --abandon {entry.id}")
        if entry.record is not None and not entry.ended:
            raise UsageError(f"{entry.id} is still {entry.state} on {entry.host}", f"gpurun stop {entry.id}")


def refuse_twins(entries: Sequence[RunEntry]) -> None:
    """Raise UsageError when another attempt of one is live on a host that answers."""
    for entry in entries:
        for twin in twins(entry):
            if twin.seen is not None:
                attempt = twin.known.get("attempt", 1)
                raise UsageError(
                    f"attempt {attempt} of {twin.id} is still {twin.state} on {twin.host}", f"gpurun stop {twin.id}"
                )
