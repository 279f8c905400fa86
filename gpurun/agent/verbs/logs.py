"""`logs`: return the bytes of a run's log, from an offset, the last lines, or since a time; with `follow`, until the
run ends.

With `attempt`, those of an earlier attempt; when followed, the later attempts come after it. With `build`, the output
of the attempt's preparation, and nothing of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lifecycle import logs, reconcile, records
from ..paths import HostPaths
from ..state import journal

if TYPE_CHECKING:
    from ..frames import Frames
    from ..schema.answers import RunAnswer
    from ..schema.requests import LogsRequest


def answer(request: LogsRequest, host: HostPaths) -> RunAnswer:
    run = records.find(host, request["run"])
    reconcile.reconcile_run(host, run)
    number = request.get("attempt")
    if number is not None:
        logs.place_of(run, number, journal.fold(run))
    return {"run": records.record_of(run)}


def stream(request: LogsRequest, host: HostPaths, out: Frames) -> None:
    run = host.run(request["run"])
    state = journal.fold(run)
    number = request.get("attempt") or state.attempt
    build = bool(request.get("build"))
    offset, prepare_offset = logs.first_offsets(logs.place_of(run, number, state), request)
    times = bool(request.get("times")) and not build
    show = logs.follow if request.get("follow") else logs.show
    show(run, out, offset=offset, prepare_offset=prepare_offset, times=times, number=number, build=build)
