"""Record the move of a run on both hosts (one `ask`), so that exactly one of them starts the next attempt.

The old host journals `moving {ask, to}` before anything is sent. From then on it begins no attempt, until `given_back`.
The new host begins the attempt under that ask, unless the ask was revoked there. A laptop that does not know how a move
ended requests the new host to settle it: either the attempt has begun, or it never will. Only then is the run given
back. Each step may be repeated.
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

KEPT = 90 * 86400.0  # seconds that a revoked ask is kept; no request is delayed for longer
PATIENCE = 20.0  # seconds to wait for another agent that reads or writes one record


# On the host that has the run.


def refuse(run: RunPaths) -> None:
    """Raise AgentError `moving` for a run whose next attempt another host may begin."""
    moving = journal.fold(run).moving
    if moving is not None:
        raise AgentError(
            error_codes.MOVING,
            "the run %s is being moved to %s, and may have begun there" % (run.id, moving["to"]),
            "gpurun resume %s (it asks %s first)" % (run.id, moving["to"]),
            exit_code=words.EXIT_USAGE,
        )


def give_up(run: RunPaths, ask: str, to: str) -> None:
    """Hand the next attempt to the host that the laptop calls `to`. The caller holds the run's lock."""
    moving = journal.fold(run).moving
    if moving is not None and moving["ask"] == ask:
        return
    refuse(run)
    journal.record(run, "moving", ask=ask, to=to)


def take_back(run: RunPaths, ask: str) -> None:
    """Undo `give_up`: the other host never began the attempt, and never will under this ask."""
    moving = journal.fold(run).moving
    if moving is not None and moving["ask"] == ask:
        journal.record(run, "given_back", ask=ask)


def note_moved(run: RunPaths, to: str, attempt: int) -> None:
    """Record that the next attempt began on the host that the laptop calls `to`. Do nothing when it began here too."""
    state = journal.fold(run)
    if state.moved == to or state.attempt >= attempt:
        return
    journal.record(run, "note", message="continues as attempt %d on %s" % (attempt, to))
    journal.record(run, "moved", to=to)


# On the host to which it goes.


def has_begun(run: RunPaths, ask: str) -> bool:
    """Return whether any attempt of the run began under this ask."""
    return any(event["event"] == "attempt" and event.get("ask") == ask for event in journal.read(run))


def settle(run: RunPaths, ask: str) -> bool:
    """Return True when the run has begun here under this ask.

    Otherwise revoke the ask: then the run never begins under it, even when the request still arrives.
    """
    with _deciding(run):
        if has_begun(run, ask):
            return True
        folder = _folder(run)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _remove_old_asks(folder)
        write_atomically(_revoked(run, ask), b"")
        sync_folder(os.path.dirname(folder))
        return False


@contextmanager
def beginning(run: RunPaths, ask: Optional[str]) -> Iterator[None]:
    """While the event of an attempt is written, no process can revoke its ask. Raises AgentError `revoked`."""
    with _deciding(run):
        if ask is not None and os.path.exists(_revoked(run, ask)):
            raise AgentError(
                error_codes.REVOKED,
                "another gpurun has cancelled the move of run %s to this host" % run.id,
                "gpurun ps -a shows where it is",
            )
        yield


def summary(state: journal.Run) -> Optional[Moving]:
    """Return `{ask, to}` of a move whose outcome is unknown on this host."""
    return {"ask": str(state.moving["ask"]), "to": state.moving["to"]} if state.moving is not None else None


@contextmanager
def _deciding(run: RunPaths) -> Iterator[None]:
    until = time.monotonic() + PATIENCE

    def waited() -> None:
        if time.monotonic() > until:
            raise AgentError(
                error_codes.BUSY, "another gpurun is moving run %s right now" % run.id, "try again in a minute"
            )

    with locks.host_lock("move-" + run.id, waited):
        yield


def _folder(run: RunPaths) -> str:
    """Return the folder beside the runs: an ask may be revoked before any file of the run is here, and stays revoked
    when the run is sent again.
    """
    return run.host.revoked


def _revoked(run: RunPaths, ask: str) -> str:
    return os.path.join(_folder(run), "%s.%s" % (run.id, ask))


def _remove_old_asks(folder: str) -> None:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            if time.time() - os.stat(path).st_mtime > KEPT:
                os.unlink(path)
        except FileNotFoundError:
            continue
