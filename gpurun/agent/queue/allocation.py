"""How a run comes to its GPUs: it stands in line, takes those that are free when its turn comes, and gives them back."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Hashable, List, Mapping, Optional, Sequence, Set, Tuple

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json
from ..host import gpus, locks
from ..host.gpus import Gpu
from ..paths import RunPaths
from ..state import journal, origin
from . import leases, tickets

LOOK_EVERY = 1.0  # seconds between two looks of a run that waits
ANSWER_TIME = 10.0  # seconds for nvidia-smi
RETURN_TIME = 60.0  # seconds for which a run waits for those before it that stood in line when their host went down
ASIDE_AFTER = 600.0  # seconds without enough GPUs on the host, after which a run lets those behind it pass
TOLD_AT_ONCE, TOLD_AGAIN = 10, 60.0  # times; after that once in so many seconds

Job = Dict[str, Any]
Taken = Tuple[List[Gpu], List[locks.Held]]


@dataclass(frozen=True)
class Why:
    """What a run waits for, and what of it is worth a new event in its journal: not an amount that changes all the time."""

    text: str
    key: Hashable = None


def wait_for_gpus(run: RunPaths, job: Job, check: Callable[[], None]) -> Taken:
    """The GPUs of this run and their locks, taken and journalled. `check` raises when a stop was asked for.

    While others are ahead or too few are free, the run is `queued` and its journal says what it waits for. Nothing that
    others do to the queue's folder ends the wait, or keeps a stop from being seen.
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
                    place.stand()
                    waiting.aside = False
                else:
                    place.leave()  # those behind it need not wait for GPUs that the host does not have
                    waiting.aside = True
                returning = time.monotonic() < began + RETURN_TIME
                taken, why = _try_to_take(run, job, ticket, waiting, returning=returning)
                few_since = None
            except AgentError as error:
                taken, why = None, Why(error.what)
                few_since = (few_since or time.monotonic()) if error.code == error_codes.TOO_FEW_GPUS else None
            if taken is not None:
                return taken
            waiting.tell(why)
            time.sleep(LOOK_EVERY)
    finally:
        place.leave()


class _Place:
    """Where a run stands in line."""

    def __init__(self, ticket: tickets.Ticket):
        self.ticket = ticket
        self.held: Optional[locks.Held] = None

    def stand(self) -> None:
        """Stand there still, or again: a cleaner may have taken the ticket away. Raises AgentError."""
        if self.held is not None and self.held.stands():
            os.utime(self.held.fd)  # a sign for those behind, and for cleaners of /tmp, which go by age
            return
        self.leave()
        self.held = tickets.stand_in_line(self.ticket)

    def leave(self) -> None:
        if self.held is not None:
            tickets.leave(self.ticket, self.held)
            self.held = None


@dataclass
class _Waiting:
    """What the journal says a run waits for. Each event is fsynced, and read by whoever looks: they are kept few."""

    run: RunPaths
    key: Hashable = None
    left: float = TOLD_AT_ONCE
    filled: float = field(default_factory=time.monotonic)
    odd: Set[str] = field(default_factory=set)
    aside: bool = False  # it has left the line for now

    def tell(self, why: Why) -> None:
        key = (why.key or why.text, self.aside)
        if key == self.key:
            return
        now = time.monotonic()
        self.left = min(self.left + (now - self.filled) / TOLD_AGAIN, TOLD_AT_ONCE)
        self.filled = now
        if self.left < 1:
            return
        self.left -= 1
        journal.record(self.run, words.QUEUED, waiting=why.text, **({"aside": True} if self.aside else {}))
        self.key = key

    def note(self, odd: Sequence[str]) -> None:
        """Tell once of what lies in the queue's folder and is no ticket; of a few, for others can make thousands."""
        new = [what for what in odd if what not in self.odd][: max(0, 3 - len(self.odd))]
        if not new:
            return
        self.odd.update(new)
        known = journal.fold(self.run).notes
        for message in ("left aside in the queue: " + what for what in new):
            if message not in known:
                journal.record(self.run, "note", message=message)


def adopt(run: RunPaths, job: Job, journalled: Sequence[Mapping[str, Any]]) -> List[locks.Held]:
    """The locks of the GPUs that a job which already runs was given. One that its own processes hold stays theirs."""
    held: List[locks.Held] = []
    for gpu in journalled:
        try:
            held += leases.take([gpu["uuid"]], run.id, job["owner"]) or []
        except (AgentError, OSError):  # the job runs all the same, and has to be watched
            traceback.print_exc()
    return held


def give_back(run: RunPaths, held: Sequence[locks.Held]) -> None:
    leases.release(held)
    ticket = journal.fold(run).ticket
    if ticket is not None:
        tickets.discard(tickets.Ticket(ticket, os.getuid(), run.id))


def look(job_engine: Optional[Sequence[str]]) -> Tuple[List[Gpu], Dict[str, leases.Use]]:
    """All GPUs of the host, and who uses which. Slow (nvidia-smi, the engine): never under a lock."""
    found = gpus.list_gpus(ANSWER_TIME)
    processes = gpus.processes(ANSWER_TIME) if found else []
    labelled = _labelled(job_engine) if job_engine and found else {}
    return found, leases.uses(found, processes, labelled, leases.owners([process[1] for process in processes]))


def _labelled(argv: Sequence[str]) -> Dict[str, str]:
    """GPU UUID -> run, of the live containers of all users."""
    from ..host.engine import Engine

    labels = '{{.Label "%s"}} {{.Label "%s"}}' % (words.LABEL_RUN, words.LABEL_GPUS)
    answer = Engine(argv).ask("ps", "--filter", "label=" + words.LABEL_GPUS, "--format", labels)
    rows = [line.split(" ") for line in answer.text.splitlines() if " " in line]
    return {uuid: run for run, uuids in rows for uuid in uuids.split(",") if uuid}


def _try_to_take(
    run: RunPaths, job: Job, ticket: tickets.Ticket, waiting: _Waiting, *, returning: bool
) -> Tuple[Optional[Taken], Why]:
    """The GPUs and their locks, or None and what the run waits for. Raises AgentError for what may mend itself."""
    asked = job["resources"]["gpus"]
    line = tickets.look()
    waiting.note(line.odd)
    first = tickets.first_before(ticket, line)
    if first is not None:  # only the first in line needs to look
        return None, Why("its turn for %s GPU(s), after run %s" % (asked, first.whose))
    before = _who_returns(run, ticket) if returning else None
    if before is not None:
        return None, Why("its turn for %s GPU(s), after run %s, which comes back to the line" % (asked, before))
    found, used = look(job["host"]["engine"])
    wanted = _wanted(run, asked, len(found))
    if wanted > len(found):
        what = "%s GPU(s): the host has %d now, fewer than when the job was submitted" % (asked, len(found))
        raise AgentError(error_codes.TOO_FEW_GPUS, what, "run `nvidia-smi` on the host")
    others = {uuid: use for uuid, use in used.items() if use.run != run.id}
    chosen = leases.choose(found, wanted, others)
    first = tickets.ahead_of(ticket)  # it may have come while we asked
    taken = leases.take([gpu.uuid for gpu in chosen], run.id, job["owner"]) if chosen and first is None else None
    if chosen is None or taken is None:
        text, key = leases.why_waiting(found, wanted, others), leases.blockers(found, others)
        if first is not None:
            text += "; its turn comes after run %s" % first.whose
        return None, Why(text, (wanted, len(found), key, first))
    try:
        record = [{"uuid": gpu.uuid, "index": gpu.index, "name": gpu.name} for gpu in chosen]
        journal.record(run, "leased", gpus=record)
    except BaseException:
        leases.release(taken)
        raise
    return (chosen, taken), Why("")


def _wanted(run: RunPaths, asked: Any, found: int) -> int:
    """How many GPUs; `all` are those that the host had when it was last asked, for one may be away for a moment."""
    if asked != "all":
        return int(asked)
    known = (read_json(run.host.facts) or {}).get("gpus") or []
    return max(found, len(known), 1)


def _who_returns(run: RunPaths, ticket: tickets.Ticket) -> Optional[str]:
    """A run of this account that was drawn before this one and wanted its GPUs already, and is not back in line.

    After a reboot, or when supervisors were killed, they come back one after the other. The queue's folder may be empty
    then; the journals hold the order.
    """
    found: List[Tuple[int, str]] = []
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
                and not (state.aside and not locks.is_free(locks.run_lock(other.id)))  # it lets us pass
                and origin.doubt(other) is None  # else nothing here brings it back
            ):
                found.append((state.ticket, other.id))
    return min(found)[1] if found else None
