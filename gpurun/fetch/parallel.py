"""Fetch several runs of one host in parallel: a fetch is mostly round trips and work of the host.

All share one SSH connection, of which sshd allows ten sessions as a rule: each run makes one transfer at a time, two sessions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.errors import GpurunError, HostUnreachable
from gpurun.events import Event, Moved, Report
from gpurun.fetch import Fetched, fetch_run
from gpurun.fetch.background import Background
from gpurun.sync import rsync

if TYPE_CHECKING:
    from gpurun.remote.wire import Wire

AT_ONCE = 4  # runs
LOOK_EVERY = 0.1  # seconds


def fetch_runs(
    wire: Wire,
    folders: Mapping[str, Path],
    sizes: Mapping[str, int],
    *,
    ended: Callable[[str, Fetched | GpurunError], None],
    report: Report,
) -> None:
    """Fetch the runs in `folders`, each into its own. `sizes`: the bytes that a run is expected to have.

    `ended` gets each result, or why there is none, in the order in which they come; `report` gets the bytes that have come and
    those of all. Both are called in the caller's thread. Once the host cannot be reached no further run is begun.
    """
    overs = {run: threading.Event() for run in folders}  # one each: a fetch that fails sets its own
    moved = {run: (0, sizes.get(run, 0)) for run in folders}
    waiting = deque(folders)
    running: dict[str, Background[Fetched]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                run = waiting.popleft()
                running[run] = Background(partial(_fetch, wire, run, folders[run], moved, overs[run]))
            next(iter(running.values())).over(LOOK_EVERY)
            report(Moved(sum(done for done, _ in moved.values()), sum(total for _, total in moved.values())))
            for run in [run for run, work in running.items() if work.over(0)]:
                result = _result(running.pop(run))
                moved[run] = (moved[run][1], moved[run][1])
                if isinstance(result, HostUnreachable):
                    waiting.clear()
                ended(run, result)
    except BaseException:  # Ctrl-C too: what is on its way is to be kept
        for over in overs.values():
            over.set()
        for work in running.values():
            work.over(rsync.TERMINATION_TIMEOUT)
        raise


def _fetch(wire: Wire, run: str, to: Path, moved: dict[str, tuple[int, int]], over: threading.Event) -> Fetched:
    def report(event: Event) -> None:
        if isinstance(event, Moved):
            moved[run] = (event.done, event.total)

    return fetch_run(wire, run, to, report=report, at_once=1, over=over)


def _result(work: Background[Fetched]) -> Fetched | GpurunError:
    try:
        return work.result()
    except GpurunError as error:
        return error
