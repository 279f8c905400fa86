"""Removing runs: from their hosts, when those have what was looked at, and from what the laptop remembers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words
from gpurun.commands import migrate, runs
from gpurun.errors import GpurunError, HostError, HostUnreachable, UsageError
from gpurun.events import Event, Warned
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.requests import RmRequest
    from gpurun.commands.unfetched import Held
    from gpurun.store.run_store import RunEntry

REMOVED_AT_ONCE = 50  # runs in one question: the host holds a lock of each
REMOVED_IN = 900.0  # seconds; a workspace of a million files takes its time


@dataclass
class Removed:
    """What a removal did: `freed` in bytes, `remains` in sentences about what stays on a host."""

    runs: list[str] = field(default_factory=list)
    freed: int = 0
    remains: list[str] = field(default_factory=list)


def remove(entries: Sequence[RunEntry], seen: Iterable[Held]) -> Removed:
    """Remove ended runs from their hosts and from the index. A host refuses what is not as it was `seen`, or is live.

    What they left on a host that they went on from goes too, if that was `seen`, and if it ever could be fetched.
    """
    runs.refuse_twins(entries)
    stamps: dict[str, dict[str, str | None]] = {}
    for one in seen:
        stamps.setdefault(one.host, {})[one.run] = one.stamp
    done = Removed()
    for entry in entries:
        _settle_move(entry, done)
    for host, ids in runs.by_host(entries).items():
        for begin in range(0, len(ids), REMOVED_AT_ONCE):
            some = ids[begin : begin + REMOVED_AT_ONCE]
            for entry in entries:
                if entry.id in some:
                    _remove_left(entry, stamps, done)
            _remove_on(host, some, stamps.get(host, {}), done)
            for run_id in some:
                run_store.note_removed(run_id)
                done.runs.append(run_id)
    return done


def _settle_move(entry: RunEntry, done: Removed) -> None:
    """Keep a move whose end is not known from beginning elsewhere what is removed here. Raises UsageError when it began."""
    if entry.maybe_on is None or entry.move is None:
        return

    def report(event: Event) -> None:
        if isinstance(event, Warned):
            done.remains.append(event.text)

    try:
        begun = migrate.settle(entry, entry.maybe_on, entry.move, report)
    except HostUnreachable as error:
        done.remains.append(f"{entry.id} may have gone on on {entry.maybe_on}, which does not answer: {error.what}")
        return
    if begun is not None:
        what = f"{entry.id} went on on {entry.maybe_on}, as attempt {begun['attempt']}"
        raise UsageError(what, f"gpurun rm {entry.id} once more, for both hosts")


def _remove_on(host: str, ids: list[str], stamps: Mapping[str, str | None], done: Removed) -> None:
    asked: RmRequest = {"runs": ids, "stamps": {run: stamps[run] for run in ids if run in stamps}}
    answer = runs.wire_to(host).ask("rm", asked, idempotent=False, timeout=REMOVED_IN)
    done.freed += int(answer["freed"])
    for left in answer.get("left") or []:
        done.remains.append(f"{host}:{left['path']} could not be removed whole ({left['why']})")


def _remove_left(entry: RunEntry, stamps: Mapping[str, Mapping[str, str | None]], done: Removed) -> None:
    """Remove what could be looked at; the rest stays, and is told in `done`.

    Raises UsageError when an attempt of the run is live there after all.
    """
    for host, fetched in entry.left_on.items():
        if fetched is None:
            continue
        stays = f"what {entry.id} left on {host} stays there"
        try:
            if entry.id in stamps.get(host, {}):
                _remove_on(host, [entry.id], stamps[host], done)
            elif _has_ended_on(host, entry.id):  # without a stamp the host would remove whatever it has
                done.remains.append(f"{stays}: nobody could look at it")
        except HostUnreachable as error:
            done.remains.append(f"{stays}: nobody could look at it ({error.what})")
        except GpurunError as error:
            if error.code == error_codes.LIVE:
                what = f"an earlier attempt of {entry.id} is still live on {host}"
                raise UsageError(what, f"gpurun stop {entry.id}") from error
            done.remains.append(f"{stays}: {error.what}")


def _has_ended_on(host: str, run: str) -> bool:
    """Tell whether that host has the run; False when it has it no more. Raises HostError when the run is live there."""
    answer = runs.wire_to(host, interactive=False).ask("ps", {"ids": [run]}, within=runs.PATIENCE)
    told = [record for record in answer["runs"] if record["id"] == run]
    if any(not words.is_over(record) for record in told):
        raise HostError(f"{run} is live there", where=host, code=error_codes.LIVE)
    return bool(told)


def forget(entry: RunEntry) -> None:
    """Drop a run from the index alone."""
    run_store.remove(entry.id)
