"""How a run comes to its GPUs: it stands in line, takes those that are free when its turn comes, and gives them back."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from . import gpus, journal, leases, locks, tickets
from . import vocabulary as words
from .errors import AgentError, RunFailed
from .gpus import Gpu
from .paths import RunPaths

LOOK_EVERY = 1.0  # seconds between two looks of a run that waits
ANSWER_TIME = 10.0  # seconds for nvidia-smi

Job = Dict[str, Any]


def wait_for_gpus(run: RunPaths, job: Job, check: Callable[[], None]) -> Tuple[List[Gpu], List[locks.Held]]:
    """The GPUs of this run and their locks, taken and journalled. `check` raises when a stop was asked for.

    While others are ahead or too few are free, the run is `queued` and its journal says what it waits for.
    """
    if job["resources"]["gpus"] == 0:
        return [], []
    ticket = tickets.Ticket(journal.fold(run).ticket or 0, os.getuid(), run.id)
    standing = tickets.stand_in_line(ticket)
    try:
        told: Optional[str] = None
        while True:
            check()
            os.utime(standing.fd)  # cleaners of /tmp go by age
            taken, why = _try_to_take(run, job, ticket)
            if taken is not None:
                return taken
            if why != told:
                journal.record(run, words.QUEUED, waiting=why)
                told = why
            time.sleep(LOOK_EVERY)
    finally:
        tickets.leave(ticket, standing)


def adopt(run: RunPaths, job: Job, journalled: Sequence[Mapping[str, Any]]) -> List[locks.Held]:
    """The locks of the GPUs that a job which already runs was given. One that its own processes hold stays theirs."""
    held = [leases.take([gpu["uuid"]], run.id, job["owner"]) for gpu in journalled]
    return [lease for one in held if one is not None for lease in one]


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
    from .engine import Engine

    labels = '{{.Label "%s"}} {{.Label "%s"}}' % (words.LABEL_RUN, words.LABEL_GPUS)
    answer = Engine(argv).ask("ps", "--filter", "label=" + words.LABEL_GPUS, "--format", labels)
    rows = [line.split(" ") for line in answer.text.splitlines() if " " in line]
    return {uuid: run for run, uuids in rows for uuid in uuids.split(",") if uuid}


def _try_to_take(
    run: RunPaths, job: Job, ticket: tickets.Ticket
) -> Tuple[Optional[Tuple[List[Gpu], List[locks.Held]]], str]:
    """The GPUs and their locks, or None and what the run waits for."""
    first = tickets.ahead_of(ticket)
    if first is not None:  # only the first in line needs to look
        return None, "its turn for %s GPU(s), after run %s" % (job["resources"]["gpus"], first.run)
    try:
        found, used = look(job["host"]["engine"])
    except AgentError as error:
        return None, error.what
    asked = job["resources"]["gpus"]
    wanted = len(found) if asked == "all" else int(asked)
    if wanted > len(found) or wanted == 0:
        raise RunFailed("gpus", "the job asks for %s GPUs, the host has %d now" % (asked, len(found)))
    others = {uuid: use for uuid, use in used.items() if use.run != run.id}
    with tickets.line_lock():
        first = tickets.ahead_of(ticket)
        chosen = leases.choose(found, wanted, others)
        if first is not None:
            return None, "%s; its turn comes after run %s" % (
                leases.why_waiting(found, wanted, others),
                first.run,
            )
        taken = leases.take([gpu.uuid for gpu in chosen], run.id, job["owner"]) if chosen else None
        if chosen is None or taken is None:
            return None, leases.why_waiting(found, wanted, others)
        record = [{"uuid": gpu.uuid, "index": gpu.index, "name": gpu.name} for gpu in chosen]
        journal.record(run, "leased", gpus=record)
    return (chosen, taken), ""
