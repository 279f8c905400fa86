"""What an engine remembers of a container's end, read from its events.

`docker inspect` tells an exit code alone: a job that saves and leaves with 0 on TERM looks finished, whoever sent the TERM.
The events of `docker events` (`kill`, `die`, `stop`) tell both, but the engine keeps the last 256 of all containers, and
none over a restart of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, List, Optional

LONGEST_GRACE = 900.0  # seconds between a TERM and the end that it is taken to be the reason of
# HUP, INT, QUIT, KILL, TERM, as engines write them: others are for the job to act on (USR1 to save, say).
_ENDING = ("1", "2", "3", "9", "15")


@dataclass(frozen=True)
class Event:
    """One event of a container. `t`: unix seconds."""

    t: float
    action: str
    signal: str = ""
    exit_code: Optional[int] = None


@dataclass(frozen=True)
class End:
    """How a job ended, as the engine remembers it."""

    t: float
    exit_code: int
    signalled: bool  # a signal came before it


def ask(container: str, since: float, until: float) -> List[str]:
    """Return `docker events` for one container, without the engine's own argv; the times are unix seconds."""
    bounds = ["--since", "%.3f" % since, "--until", "%.3f" % until]
    return ["events", *bounds, "--filter", "container=" + container, "--format", "{{json .}}"]


def parse(text: str) -> List[Event]:
    """Return the events, first come first; lines of another shape are left out."""
    found = [_parse(line) for line in text.splitlines()]
    return [event for event in found if event is not None]


def _parse(line: str) -> Optional[Event]:
    try:
        told: Any = json.loads(line)
        more = told["Actor"]["Attributes"]
        code = more.get("exitCode")
        return Event(
            told["timeNano"] / 1e9, told["Action"], str(more.get("signal", "")), None if code is None else int(code)
        )
    except (ValueError, KeyError, TypeError):
        return None


def end_of_the_job(events: List[Event], refused: int) -> Optional[End]:
    """Return the end of the job itself, not that of a later start, which exits with `refused`; None if it is forgotten."""
    died = next(
        (at for at, one in enumerate(events) if one.action == "die" and one.exit_code not in (None, refused)), None
    )
    if died is None:
        return None
    end = events[died]
    killed = any(
        one.action == "kill" and one.signal in _ENDING and end.t - one.t <= LONGEST_GRACE for one in events[:died]
    )
    behind = [one.action for one in events[died + 1 :]]
    started_again = behind.index("start") if "start" in behind else len(behind)
    assert end.exit_code is not None
    return End(end.t, end.exit_code, killed or "stop" in behind[:started_again])
