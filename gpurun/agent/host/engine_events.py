"""Read from an engine's events how a container ended.

`docker inspect` reports only an exit code: a job that saves on TERM and exits with 0 looks finished, even when an
administrator sent the TERM. The events of `docker events` (`kill`, `die`, `stop`) report both, but the engine keeps
only the last 256 events of all containers, and none after it restarts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, List, Optional

LONGEST_GRACE = 900.0  # seconds after a TERM in which an end counts as caused by it
# HUP, INT, QUIT, KILL, TERM, as engines write them. Other signals are for the job itself (USR1 to save, for example).
_ENDING = ("1", "2", "3", "9", "15")


@dataclass(frozen=True)
class Event:
    """Hold one event of a container. `t`: unix seconds."""

    t: float
    action: str
    signal: str = ""
    exit_code: Optional[int] = None


@dataclass(frozen=True)
class End:
    """Describe how a job ended, as the engine recorded it."""

    t: float
    exit_code: int
    signalled: bool  # a signal came before the end
    from_start: bool = False  # the same engine recorded the job's start: it was not restarted since


def ask(container: str, since: float, until: float) -> List[str]:
    """Return `docker events` for one container, without the engine's own argv; the times are unix seconds."""
    bounds = ["--since", "%.3f" % since, "--until", "%.3f" % until]
    return ["events", *bounds, "--filter", "container=" + container, "--format", "{{json .}}"]


def parse(text: str) -> List[Event]:
    """Return the events, oldest first. Lines of another shape are ignored."""
    parsed = [_parse_event(line) for line in text.splitlines()]
    return [event for event in parsed if event is not None]


def _parse_event(line: str) -> Optional[Event]:
    try:
        record: Any = json.loads(line)
        attributes = record["Actor"]["Attributes"]
        code = attributes.get("exitCode")
        return Event(
            record["timeNano"] / 1e9,
            record["Action"],
            str(attributes.get("signal", "")),
            None if code is None else int(code),
        )
    except (ValueError, KeyError, TypeError):
        return None


def end_of_the_job(events: List[Event], refused: int) -> Optional[End]:
    """Return the end of the job itself, not the end of a later start, which exits with `refused`; None when no event of
    it is left.
    """
    end_index = next(
        (at for at, event in enumerate(events) if event.action == "die" and event.exit_code not in (None, refused)),
        None,
    )
    if end_index is None:
        return None
    end = events[end_index]
    killed = any(
        event.action == "kill" and event.signal in _ENDING and end.t - event.t <= LONGEST_GRACE
        for event in events[:end_index]
    )
    later_actions = [event.action for event in events[end_index + 1 :]]
    started_again = later_actions.index("start") if "start" in later_actions else len(later_actions)
    assert end.exit_code is not None
    from_start = any(event.action == "start" for event in events[:end_index])
    return End(end.t, end.exit_code, killed or "stop" in later_actions[:started_again], from_start)
