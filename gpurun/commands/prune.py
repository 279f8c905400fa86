"""Which runs can go: those that ended long ago, or whose results are here.

Whether all is here is known only when the hosts have said what they hold (`with_held`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.commands import unfetched
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import PsAnswer
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.runs import HostRuns
    from gpurun.commands.unfetched import Held


@dataclass(frozen=True)
class Removal:
    """A run that would be removed."""

    host: str
    record: RunRecord
    held: tuple[Held, ...] = ()  # what its host has of it now, and those that it was on before

    @property
    def why_not_here(self) -> str | None:
        """Why something would be lost with it; None when nothing would. Once its hosts were asked."""
        entry = run_store.find(self.record["id"])
        if entry is None or all(one.host != self.host for one in self.held):
            return unfetched.NEVER
        return next(iter(unfetched.at_stake([entry], self.held)), None)

    @property
    def bytes(self) -> int:
        return int(self.record.get("disk") or 0)


def choose(found: Sequence[HostRuns], *, owner: str, fetched: bool, older_than: float | None) -> list[Removal]:
    """The ended runs of `owner` that meet all that was asked: fetched, and ended more than `older_than` seconds ago."""
    chosen = []
    for one in found:
        if one.answer is None:
            continue
        for record in one.answer["runs"]:
            # What only a newer gpurun understands stays.
            ended = record["state"] in words.ENDS and record["owner"] == owner and not record.get("newer")
            old = older_than is None or age(record, one.answer) > older_than
            here = (
                not fetched or run_store.is_here(record["id"]) or bool(record.get("service"))
            )  # a service may hold nothing
            if ended and _is_its_run(record, one.host) and here and old:
                chosen.append(Removal(one.host, record))
    return chosen


def _is_its_run(record: RunRecord, host: str) -> bool:
    """False for what would remove another run than the record's, or one that may be live on another host."""
    entry = run_store.find(record["id"])
    if entry is None:
        return True
    return entry.host == host and not (entry.twins or entry.maybe_on or run_store.is_another_run(entry, record))


def age(record: RunRecord, answer: PsAnswer, here: float | None = None) -> float:
    """Return the seconds since a run ended, at least: clocks are set, and what is removed too early is gone.

    `answer` is the host's, with its clock (`now`) and its time since its boot (`mark`); `here` is this laptop's clock, by
    default the present. The youngest counts: the end by the host's clock, the end by its time since its boot, and the
    submit by the clock of the laptop that sent it.
    """
    now, created, ended = float(answer["now"]), record.get("created"), record.get("ended")
    ages = [now - ended] if ended else []
    ages += [(time.time() if here is None else here) - created, now - created] if created else []
    then, mark = record.get("ended_mark") or {}, answer.get("mark") or {}
    begun, up = then.get("up"), mark.get("up")
    if then.get("boot") and then["boot"] == mark.get("boot") and begun is not None and up is not None:
        ages.append(float(up) - float(begun))
    return min(ages, default=0.0)


def with_held(chosen: Sequence[Removal], seen: Iterable[Held]) -> list[Removal]:
    """Return the removals, each with what was `seen` of it on all of its hosts."""
    of: dict[str, list[Held]] = {}
    for one in seen:
        of.setdefault(one.run, []).append(one)
    return [replace(removal, held=tuple(of.get(removal.record["id"], ()))) for removal in chosen]
