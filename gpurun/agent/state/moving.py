"""Record the move of a run on both hosts (one `ask`), so that exactly one of them starts the next attempt.

The old host journals `moving {ask, to}` before a byte travels. From then on it begins nothing more, until `given_back`. The new
host begins the attempt under that ask, unless the ask was revoked there. Who does not know how a move went asks the new host
to settle it: either it has begun, or it never will. Only then is the run given back. Each step may be repeated.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator, Optional

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import sync_folder, write_atomically
from ..host import locks
from ..paths import RunPaths
from . import journal

if TYPE_CHECKING:
    from ..schema.run import Moving

KEPT = 90 * 86400.0  # seconds that a revoked ask is remembered; a question is not on its way for as long
PATIENCE = 20.0  # seconds for another agent to look up or note one thing


# On the host that has the run.


def refuse(run: RunPaths) -> None:
    """Raise AgentError `moving` for a run whose next attempt another host may begin."""
    moving = journal.fold(run).moving
    if moving is not None:
        raise AgentError(
            error_codes.MOVING,
            "the run %s is on its way to %s, and may have begun there" % (run.id, moving["to"]),
            "gpurun resume %s asks %s whether it has" % (run.id, moving["to"]),
            exit_code=words.EXIT_USAGE,
        )


def give_up(run: RunPaths, ask: str, to: str) -> None:
    """Leave the next attempt to the host that the laptop calls `to`. The caller holds the run's lock."""
    moving = journal.fold(run).moving
    if moving is not None and moving["ask"] == ask:
        return
    refuse(run)
    journal.record(run, "moving", ask=ask, to=to)


def take_back(run: RunPaths, ask: str) -> None:
    """Undo `give_up`: the other host never began, and never will under this ask."""
    moving = journal.fold(run).moving
    if moving is not None and moving["ask"] == ask:
        journal.record(run, "given_back", ask=ask)


def note_moved(run: RunPaths, to: str, attempt: int) -> None:
    """The next attempt began on the host that the laptop calls `to`. Nothing is noted when it began here too."""
    state = journal.fold(run)
    if state.moved == to or state.attempt >= attempt:
        return
    journal.record(run, "note", message="goes on as attempt %d on %s" % (attempt, to))
    journal.record(run, "moved", to=to)


# On the host to which it goes.


def has_begun(run: RunPaths, ask: str) -> bool:
    """Whether an attempt of the run began under this ask, be it the newest or not."""
    return any(event["event"] == "attempt" and event.get("ask") == ask for event in journal.read(run))


def settle(run: RunPaths, ask: str) -> bool:
    """True when the run has begun here under this ask. Else it never will: the ask is revoked, whatever is on its way."""
    with _deciding(run):
        if has_begun(run, ask):
            return True
        folder = _folder(run)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _forget_old(folder)
        write_atomically(_revoked(run, ask), b"")
        sync_folder(os.path.dirname(folder))
        return False


@contextmanager
def beginning(run: RunPaths, ask: Optional[str]) -> Iterator[None]:
    """While the event of an attempt is written: nobody revokes its ask meanwhile. Raises AgentError `revoked`."""
    with _deciding(run):
        if ask is not None and os.path.exists(_revoked(run, ask)):
            raise AgentError(
                error_codes.REVOKED,
                "the move of run %s to this host was given up meanwhile, by another gpurun" % run.id,
                "gpurun ps -a shows where it is",
            )
        yield


def summary(state: journal.Run) -> Optional[Moving]:
    """`{ask, to}` of a move whose outcome this host does not know."""
    return {"ask": str(state.moving["ask"]), "to": state.moving["to"]} if state.moving is not None else None


@contextmanager
def _deciding(run: RunPaths) -> Iterator[None]:
    until = time.monotonic() + PATIENCE

    def waited() -> None:
        if time.monotonic() > until:
            raise AgentError(
                error_codes.BUSY, "another gpurun decides about run %s right now" % run.id, "try again in a minute"
            )

    with locks.host_lock("move-" + run.id, waited):
        yield


def _folder(run: RunPaths) -> str:
    """Beside the runs: an ask is revoked before anything of the run is here, and when it is sent anew."""
    return run.host.revoked


def _revoked(run: RunPaths, ask: str) -> str:
    return os.path.join(_folder(run), "%s.%s" % (run.id, ask))


def _forget_old(folder: str) -> None:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            if time.time() - os.stat(path).st_mtime > KEPT:
                os.unlink(path)
        except FileNotFoundError:
            continue
