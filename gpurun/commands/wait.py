"""Wait until runs have ended, over connections that break."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.commands import runs
from gpurun.errors import ContactLost, GpurunError, HostUnreachable
from gpurun.remote import records
from gpurun.store import run_questions

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.store.run_store import RunEntry

ROUND = 25.0  # seconds that one question may last
PAUSE = 2.0  # seconds before a host that could not be reached is asked again


@dataclass(frozen=True)
class Waiting:
    """How long to wait, and what is called meanwhile, by one thread for each host."""

    left: Callable[[], float] = lambda: math.inf  # seconds until the waiting is over
    round: float = ROUND  # seconds
    seen: Callable[[RunRecord], None] = lambda record: None  # each run, as often as its host answers
    ended: Callable[[RunRecord], None] = lambda record: None
    lost: Callable[[str, GpurunError], None] = lambda host, error: None  # a host that answered does not any more
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def until_ended(entries: Sequence[RunEntry], waiting: Waiting) -> dict[str, RunRecord]:
    """Wait until all have ended or the time is over. Return the records of those that ended, by id.

    Raises HostUnreachable for a host that never answered, and GpurunError for a run that its host does not know.
    """
    groups = runs.by_host(entries)
    if len(groups) <= 1:  # in this thread, where Ctrl-C ends it at once
        ended = [_until_ended_on(host, ids, waiting) for host, ids in groups.items()]
    else:
        with ThreadPoolExecutor(max_workers=len(groups)) as pool:
            ended = list(pool.map(lambda host: _until_ended_on(host, groups[host], waiting), groups))
    return {record["id"]: record for records in ended for record in records}


def _until_ended_on(host: str, ids: Sequence[str], waiting: Waiting) -> list[RunRecord]:
    """Return the ended runs of one host. A host that is out of reach says nothing about its runs: it is asked again."""
    wire, live, answered = runs.wire_to(host), list(ids), False
    done: list[RunRecord] = []
    while live and (seconds := min(waiting.round, waiting.left())) >= 0:
        began = waiting.clock()
        try:
            answer = run_questions.ask(wire, "wait", {"runs": live, "seconds": seconds}, live, timeout=seconds + 15)
        except HostUnreachable as error:
            if not answered and not isinstance(error, ContactLost):
                raise  # it never let us in: a wrong key does not mend itself
            waiting.lost(host, error)
            waiting.sleep(PAUSE)
            continue
        answered = True
        for record in answer["runs"]:
            waiting.seen(record)
            if words.is_over(record):
                waiting.ended(record)
                done.append(record)
                live.remove(record["id"])
        for record in answer["runs"]:  # behind the ends, which are reported in any case
            records.refuse_unknown(record, host)
        # A host that answers at once, although a run is live, is not asked without a pause.
        if live and waiting.clock() < began + min(seconds, PAUSE):
            waiting.sleep(PAUSE)
    return done
