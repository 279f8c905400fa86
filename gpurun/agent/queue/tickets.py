"""Keep the line of runs that wait for GPUs: first in, first out, for all users of the host.

A ticket's number is the time at which it was drawn, in microseconds. So a run keeps its place over a reboot, after
which only the journals of the runs hold the order. A run stands in line when its image is ready and it needs GPUs: it
has a file `NUMBER-UID-RUN` in a sticky folder and holds the lock of that file. A run that still prepares, or whose
supervisor is dead, blocks no other run. The owner of the file counts, not the account in its name.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import List, Optional, Tuple

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import remove
from ..host import locks
from . import shared_folder
from .shared_folder import QUEUE, Odd

_NAME = re.compile(r"([0-9]{1,18})-([0-9]{1,10})-(%s)" % words.RUN_ID)
_DAY = 86_400_000_000  # microseconds
SILENCE = 600.0  # seconds without a sign of a run in line, after which the others stop waiting for it


@dataclass(frozen=True, order=True)
class Ticket:
    number: int
    uid: int
    run: str

    @property
    def name(self) -> str:
        return "%010d-%d-%s" % (self.number, self.uid, self.run)

    @property
    def path(self) -> str:
        return shared_folder.path(QUEUE, self.name)

    @property
    def whose(self) -> str:
        """Return the run for people; another account is named."""
        return self.run if self.uid == os.getuid() else "%s of %s" % (self.run, shared_folder.account(self.uid))


@dataclass(frozen=True)
class Line:
    """List the runs that wait for GPUs, first come first, and describe what else is in the queue's folder."""

    tickets: Tuple[Ticket, ...]
    odd: Tuple[str, ...] = ()


def draw(run_id: str) -> Ticket:
    """Return a ticket behind all runs in line. Nothing that others do to the queue's folder prevents this."""
    now = time.time_ns() // 1000
    numbers: List[int] = []
    with suppress(AgentError), shared_folder.opened(QUEUE) as folder:
        numbers = [ticket.number for ticket in map(_parse, os.listdir(folder)) if ticket is not None]
    # A number that is far ahead of the clock belongs to no waiting run.
    behind = max((number + 1 for number in numbers if number < now + _DAY), default=now)
    return Ticket(max(now, behind), os.getuid(), run_id)


def of(run_id: str, number: int) -> Ticket:
    """Return the ticket that was drawn for a run.

    A number far ahead of the clock, which was wrong then, would never get its turn.
    """
    now = time.time_ns() // 1000
    return Ticket(number if number < now + _DAY else now, os.getuid(), run_id)


def stand_in_line(ticket: Ticket) -> locks.Held:
    """Make the ticket's file and hold its lock, until `leave` or until the holder dies. Raises AgentError `queue`."""
    try:
        with shared_folder.opened(QUEUE) as folder:
            return shared_folder.put(folder, ticket.name, ticket.path)
    except Odd as odd:
        raise AgentError(error_codes.QUEUE, odd.what, "let its owner or root remove it", where=ticket.path) from None


def leave(ticket: Ticket, held: locks.Held) -> None:
    discard(ticket)
    held.release()


def discard(ticket: Ticket) -> None:
    with suppress(OSError):
        remove(ticket.path)


def ahead_of(ticket: Ticket) -> Optional[Ticket]:
    """Return the first ticket in line before this one, or None. Raises AgentError `queue`."""
    return first_before(ticket, read_line())


def first_before(ticket: Ticket, line: Line) -> Optional[Ticket]:
    return next((other for other in line.tickets if other < ticket), None)


def in_line() -> List[Ticket]:
    """Return the tickets in line, first come first. Raises AgentError `queue`."""
    return list(read_line().tickets)


def read_line() -> Line:
    """Return the line. Files that are not tickets are described in `odd`. Raises AgentError `queue`."""
    standing, odd = [], []
    with shared_folder.opened(QUEUE) as folder:
        for name in sorted(os.listdir(folder)):
            if name.startswith(shared_folder.NEW):
                continue
            ticket = _parse(name)
            place = shared_folder.path(QUEUE, name)
            try:
                fd = shared_folder.open_checked(folder, name, place, ticket.uid if ticket else None)
            except FileNotFoundError:
                continue
            except Odd as error:
                odd.append(error.what)
                continue
            try:
                if ticket is None:
                    whose = shared_folder.account(os.fstat(fd).st_uid)
                    odd.append("%s of %s: not a ticket" % (ascii(place)[1:-1], whose))
                elif time.time() - os.fstat(fd).st_mtime < SILENCE and shared_folder.is_held(fd):
                    standing.append(ticket)
            finally:
                os.close(fd)
    return Line(tuple(sorted(standing)), tuple(odd))


def _parse(name: str) -> Optional[Ticket]:
    match = _NAME.fullmatch(name)
    return Ticket(int(match.group(1)), int(match.group(2)), match.group(3)) if match else None
