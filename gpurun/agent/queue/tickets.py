"""First in, first out: a ticket drawn on the host, for all users of it.

A ticket's number is the time at which it was drawn, in microseconds, so that it keeps its place over a reboot, which
leaves nothing of the queue but what is in the journals of its runs. Who stands in line (the image is ready, it wants its
GPUs) has a file `NUMBER-UID-RUN` in a sticky folder, and holds its lock: one who still prepares, or whose supervisor
is dead, keeps nobody waiting. Whose file it is counts, not whose it claims to be.
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
SILENCE = 600.0  # seconds without a sign of who stands in line, after which nobody waits for it


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
        """For people; another account is named."""
        return self.run if self.uid == os.getuid() else "%s of %s" % (self.run, shared_folder.account(self.uid))


@dataclass(frozen=True)
class Line:
    """Those who wait for GPUs, first come first, and what else was found in the queue's folder, in words."""

    tickets: Tuple[Ticket, ...]
    odd: Tuple[str, ...] = ()


def draw(run_id: str) -> Ticket:
    """A number behind everybody's who stands in line. Nothing that others did to the queue's folder keeps it from that."""
    now = time.time_ns() // 1000
    known: List[int] = []
    with suppress(AgentError), shared_folder.opened(QUEUE) as folder:
        known = [ticket.number for ticket in map(_parse, os.listdir(folder)) if ticket is not None]
    # One that is far ahead of the clock is nobody's who waits.
    behind = max((number + 1 for number in known if number < now + _DAY), default=now)
    return Ticket(max(now, behind), os.getuid(), run_id)


def of(run_id: str, number: int) -> Ticket:
    """The ticket that was drawn for a run. One far ahead of the clock, which was wrong then, would never have its turn."""
    now = time.time_ns() // 1000
    return Ticket(number if number < now + _DAY else now, os.getuid(), run_id)


def stand_in_line(ticket: Ticket) -> locks.Held:
    """Make the ticket's file and hold its lock. Dropped by `leave`, or by the holder's death. Raises AgentError `queue`."""
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
    """The first of those in line before this ticket. Raises AgentError `queue`."""
    return first_before(ticket, look())


def first_before(ticket: Ticket, line: Line) -> Optional[Ticket]:
    return next((other for other in line.tickets if other < ticket), None)


def in_line() -> List[Ticket]:
    """Those who wait for GPUs, first come first. Raises AgentError `queue`."""
    return list(look().tickets)


def look() -> Line:
    """The line as it stands. What is no ticket is left out, and told. Raises AgentError `queue`."""
    standing, odd = [], []
    with shared_folder.opened(QUEUE) as folder:
        for name in sorted(os.listdir(folder)):
            if name.startswith(shared_folder.NEW):
                continue
            ticket = _parse(name)
            place = shared_folder.path(QUEUE, name)
            try:
                fd = shared_folder.look(folder, name, place, ticket.uid if ticket else None)
            except FileNotFoundError:
                continue
            except Odd as error:
                odd.append(error.what)
                continue
            try:
                if ticket is None:
                    whose = shared_folder.account(os.fstat(fd).st_uid)
                    odd.append("%s of %s: no ticket" % (ascii(place)[1:-1], whose))
                elif time.time() - os.fstat(fd).st_mtime < SILENCE and shared_folder.is_held(fd):
                    standing.append(ticket)
            finally:
                os.close(fd)
    return Line(tuple(sorted(standing)), tuple(odd))


def _parse(name: str) -> Optional[Ticket]:
    found = _NAME.fullmatch(name)
    return Ticket(int(found.group(1)), int(found.group(2)), found.group(3)) if found else None
