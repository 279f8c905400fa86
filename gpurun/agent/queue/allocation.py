"""Allocate GPUs to a run: wait in line, take the free GPUs when the run's turn comes, and give them back."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Dict, Hashable, List, Optional, Sequence, Set, Tuple

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json
from ..host import gpus, locks
from ..host.gpus import Gpu
from ..paths import RunPaths
from ..state import journal, origin
from . import leases, tickets

if TYPE_CHECKING:
    from ..schema.host import GpuFacts, GpuOfRun
    from ..schema.job import GpuRequest, Job
    from ..schema.run import Facts

LOOK_EVERY = 1.0  # seconds between two checks of a waiting run
ANSWER_TIME = 10.0  # seconds for nvidia-smi
RETURN_TIME = 60.0  # seconds for which a run waits for runs before it that stood in line when their host went down
ASIDE_AFTER = 600.0  # seconds without enough GPUs on the host, after which a run lets the runs behind it pass
EVENTS_AT_ONCE, EVENT_EVERY = 10, 60.0  # events; after that one event in this many seconds

Taken = Tuple[List[Gpu], List[locks.Held]]


@dataclass(frozen=True)
class Why:
    """Say what a run waits for.

    `key` is what makes it worth a new event in the journal: no amounts, which change all the time.
    """

    text: str
    key: Hashable = None


def wait_for_gpus(run: RunPaths, job: Job, check: Callable[[], None]) -> Taken:
    """Take the GPUs of this run, record them in the journal, and return them with their locks.

    `check` raises when a stop was requested.

    While others are ahead or too few GPUs are free, the run is `queued` and its journal names what it waits for.
    Nothing that others do to the queue's folder ends the wait, or hides a stop request.
    """
    if job["resources"]["gpus"] == 0:
        return [], []
    ticket = tickets.of(run.id, journal.fold(run).ticket or 0)
    place, waiting = _Place(ticket), _Waiting(run)
    began = time.monotonic()
    few_since: Optional[float] = None
    try:
        while True:
            check()
            try:
                if few_since is None or time.monotonic() < few_since + ASIDE_AFTER:
                    place.stay()
                    waiting.aside = False
                else:
                    place.leave()  # the runs behind it need not wait for GPUs that the host does not have
                    waiting.aside = True
                returning = time.monotonic() < began + RETURN_TIME
                taken, why = _try_to_take(run, job, ticket, waiting, returning=returning)
                few_since = None
            except AgentError as error:
                taken, why = None, Why(error.what)
                few_since = (few_since or time.monotonic()) if error.code == error_codes.TOO_FEW_GPUS else None
            if taken is not None:
                return taken
            waiting.record(why)
            time.sleep(LOOK_EVERY)
    finally:
        place.leave()


class _Place:
    """Hold a run's place in line."""

    def __init__(self, ticket: tickets.Ticket):
        self.ticket = ticket
        self.held: Optional[locks.Held] = None

    def stay(self) -> None:
        """Stay in line, or return to it: a cleaner may have removed the ticket. Raises AgentError."""
        if self.held is not None and self.held.is_intact():
            os.utime(self.held.fd)  # a sign for the runs behind, and for cleaners of /tmp, which remove old files
            return
        self.leave()
        self.held = tickets.stand_in_line(self.ticket)

    def leave(self) -> None:
        if self.held is not None:
            tickets.leave(self.ticket, self.held)
            self.held = None


@dataclass
class _Waiting:
    """Write into the journal what a run waits for.

    Each event is fsynced, and each reader reads it: there must be few.
    """

    run: RunPaths
    key: Hashable = None
    left: float = EVENTS_AT_ONCE
    filled: float = field(default_factory=time.monotonic)
    odd: Set[str] = field(default_factory=set)
    aside: bool = False  # the run has left the line for now

    def record(self, why: Why) -> None:
        """Record what the run waits for, unless the last event names the same or there were too many events."""
        key = (why.key or why.text, self.aside)
        if key == self.key:
            return
        now = time.monotonic()
        self.left = min(self.left + (now - self.filled) / EVENT_EVERY, EVENTS_AT_ONCE)
        self.filled = now
        if self.left < 1:
            return
        self.left -= 1
        facts: Facts = {"waiting": why.text}
        if self.aside:
            facts["aside"] = True
        journal.record(self.run, words.QUEUED, **facts)
        self.key = key

    def note(self, odd: Sequence[str]) -> None:
        """Record once what is in the queue's folder and is not a ticket.

        Only a few: other accounts can make thousands of files.
        """
        new = [what for what in odd if what not in self.odd][: max(0, 3 - len(self.odd))]
        if not new:
            return
        self.odd.update(new)
        recorded = journal.fold(self.run).notes
        for message in ("ignored in the queue: " + what for what in new):
            if message not in recorded:
                journal.record(self.run, "note", message=message)


def adopt(run: RunPaths, job: Job, journalled: Sequence[GpuOfRun]) -> List[locks.Held]:
    """Take again the locks of the GPUs of a job that already runs.

    A lock that the job's own processes hold stays theirs.
    """
    held: List[locks.Held] = []
    for gpu in journalled:
        try:
            held += leases.take([gpu["uuid"]], run.id, job["owner"]) or []
        except (AgentError, OSError):  # the job runs all the same and must be monitored
            traceback.print_exc()
    return held


def give_back(run: RunPaths, held: Sequence[locks.Held]) -> None:
    leases.release(held)
    ticket = journal.fold(run).ticket
    if ticket is not None:
        tickets.discard(tickets.Ticket(ticket, os.getuid(), run.id))


def find_gpu_uses(job_engine: Optional[Sequence[str]]) -> Tuple[List[Gpu], Dict[str, leases.Use]]:
    """Return all GPUs of the host and who uses which. Slow (nvidia-smi, the engine): never call this under a lock."""
    host_gpus = gpus.list_gpus(ANSWER_TIME)
    processes = gpus.processes(ANSWER_TIME) if host_gpus else []
    labelled = _runs_of_labels(job_engine) if job_engine and host_gpus else {}
    return host_gpus, leases.uses(host_gpus, processes, labelled, leases.owners([process[1] for process in processes]))


def _runs_of_labels(argv: Sequence[str]) -> Dict[str, str]:
    """Return GPU UUID -> run, from the labels of the live containers of all users."""
    from ..host.engine import Engine

    labels = '{{.Label "%s"}} {{.Label "%s"}}' % (words.LABEL_RUN, words.LABEL_GPUS)
    answer = Engine(argv).ask("ps", "--filter", "label=" + words.LABEL_GPUS, "--format", labels)
    rows = [line.split(" ") for line in answer.text.splitlines() if " " in line]
    return {uuid: run for run, uuids in rows for uuid in uuids.split(",") if uuid}


def _try_to_take(
    run: RunPaths, job: Job, ticket: tickets.Ticket, waiting: _Waiting, *, returning: bool
) -> Tuple[Optional[Taken], Why]:
    """Return the GPUs and their locks, or None and what the run waits for.

    Raises AgentError for a fault that may pass.
    """
    gpus_requested = job["resources"]["gpus"]
    line = tickets.read_line()
    waiting.note(line.odd)
    first = tickets.first_before(ticket, line)
    if first is not None:  # only the first in line needs to ask for free GPUs
        return None, Why("its turn for %s GPU(s), after run %s" % (gpus_requested, first.whose))
    before = _find_returning_run(run, ticket) if returning else None
    if before is not None:
        return None, Why("its turn for %s GPU(s), after run %s, which returns to the line" % (gpus_requested, before))
    host_gpus, used = find_gpu_uses(job["host"]["engine"])
    wanted = _count_wanted(run, gpus_requested, len(host_gpus))
    if wanted > len(host_gpus):
        what = "%s GPU(s): the host has %d now, fewer than when the job was submitted" % (
            gpus_requested,
            len(host_gpus),
        )
        raise AgentError(error_codes.TOO_FEW_GPUS, what, "run `nvidia-smi` on the host")
    others = {uuid: use for uuid, use in used.items() if use.run != run.id}
    chosen = leases.choose(host_gpus, wanted, others)
    first = tickets.ahead_of(ticket)  # another run may have come in the meantime
    taken = leases.take([gpu.uuid for gpu in chosen], run.id, job["owner"]) if chosen and first is None else None
    if chosen is None or taken is None:
        text, key = leases.why_waiting(host_gpus, wanted, others), leases.blockers(host_gpus, others)
        if first is not None:
            text += "; its turn comes after run %s" % first.whose
        return None, Why(text, (wanted, len(host_gpus), key, first))
    try:
        gpus_of_run: List[GpuOfRun] = [{"uuid": gpu.uuid, "index": gpu.index, "name": gpu.name} for gpu in chosen]
        journal.record(run, "leased", gpus=gpus_of_run)
    except BaseException:
        leases.release(taken)
        raise
    return (chosen, taken), Why("")


def _count_wanted(run: RunPaths, requested: GpuRequest, present: int) -> int:
    """Return how many GPUs the run needs.

    `all` means as many as the host had when it was last asked: a GPU may be away for a moment.
    """
    if requested != "all":
        return int(requested)
    cached: List[GpuFacts] = (read_json(run.host.facts) or {}).get("gpus") or []
    return max(present, len(cached), 1)


def _find_returning_run(run: RunPaths, ticket: tickets.Ticket) -> Optional[str]:
    """Return a run of this account that drew its ticket before this one, already waited for its GPUs, and is not back
    in line.

    After a reboot, or when supervisors were killed, they return one after the other. The queue's folder may be empty
    then; the journals hold the order.
    """
    returning: List[Tuple[int, str]] = []
    for other in run.host.all_runs():
        if other.id == run.id or os.path.exists(other.exit):
            continue
        with suppress(OSError, AgentError):
            state = journal.fold(other)
            if (
                state.ticket is not None
                and state.ticket < ticket.number
                and state.state in (words.QUEUED, words.PREPARING)
                and state.prepared
                and not (state.between or state.gpus or state.stop or state.newer or state.damaged)
                and not (state.aside and not locks.is_free(locks.run_lock(other.id)))  # it lets this run pass
                and origin.doubt(other) is None  # else nothing on this host starts it again
            ):
                returning.append((state.ticket, other.id))
    return min(returning)[1] if returning else None
