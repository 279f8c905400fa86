"""First in, first out: a ticket drawn on the host, for all users of it.

A ticket is a file `NUMBER-UID-RUN` in a sticky folder. Its number is drawn at `start` and stays the run's for good; its
holder locks it when it stands in line (its image is ready, it wants its GPUs), so that one who still prepares, or whose
supervisor is dead, keeps nobody waiting.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, List, Optional

from . import locks
from .files import remove


def shared_folder() -> str:
    """The folder of tickets and GPU locks that all users of the host share."""
    path = os.path.join(locks.base_folder(), "gpurun-gpus")
    for folder in (path, os.path.join(path, "queue")):
        try:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)
        except FileExistsError:
            pass
    return path


@contextmanager
def line_lock() -> Iterator[None]:
    """Held for moments only, while a ticket is drawn or GPUs are taken; nothing slow happens under it."""
    held = locks.acquire(os.path.join(shared_folder(), "line"), wait=True, mode=0o666)
    assert held is not None
    try:
        yield
    finally:
        held.release()


@dataclass(frozen=True)
class Ticket:
    number: int
    uid: int
    run: str

    @property
    def path(self) -> str:
        return os.path.join(shared_folder(), "queue", "%010d-%d-%s" % (self.number, self.uid, self.run))


def draw(run_id: str) -> Ticket:
    """A number behind everybody's."""
    with line_lock():
        number = max((ticket.number for ticket in _all()), default=0) + 1
        ticket = Ticket(number, os.getuid(), run_id)
        os.close(locks.open_lock(ticket.path, 0o644))
    return ticket


def stand_in_line(ticket: Ticket) -> locks.Held:
    """Lock the ticket (made anew when a cleaner took it away). Dropped by `leave`, or by the holder's death."""
    held = locks.acquire(ticket.path, wait=True, mode=0o644)
    assert held is not None
    return held


def leave(ticket: Ticket, held: locks.Held) -> None:
    discard(ticket)
    held.release()


def discard(ticket: Ticket) -> None:
    remove(ticket.path)


def ahead_of(ticket: Ticket) -> Optional[Ticket]:
    """The first of those in line before this ticket."""
    return next((other for other in in_line() if other.number < ticket.number), None)


def in_line() -> List[Ticket]:
    """Those who wait for GPUs, first come first."""
    return sorted((ticket for ticket in _all() if _is_held(ticket)), key=lambda ticket: ticket.number)


def _is_held(ticket: Ticket) -> bool:
    # Others' tickets are ours to read, not to write: a lock needs no more.
    try:
        fd = os.open(ticket.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _all() -> List[Ticket]:
    tickets = []
    for name in os.listdir(os.path.join(shared_folder(), "queue")):
        number, _, rest = name.partition("-")
        uid, _, run = rest.partition("-")
        if number.isdigit() and uid.isdigit() and run:
            tickets.append(Ticket(int(number), int(uid), run))
    return tickets
