"""`stop`: record that a stop is requested. The supervisor acts on it, now or when it runs again.

Nothing is done to a run that belongs, or may belong, to another host and shows no life. With `abandon` such a run is
recorded as lost, and belongs to this host from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List

from .. import runtimes
from .. import vocabulary as words
from ..lifecycle import finish, reconcile, records
from ..paths import HostPaths, RunPaths
from ..state import jobs, journal, origin

if TYPE_CHECKING:
    from ..schema.answers import StopAnswer
    from ..schema.requests import StopRequest


def answer(request: StopRequest, host: HostPaths) -> StopAnswer:
    """Raise AgentError: `elsewhere`, after the other runs were asked to stop; see also finish.abandon."""
    runs = records.find_all(host, request["runs"])
    foreign_runs: List[RunPaths] = []
    for run in runs:
        if request.get("abandon"):
            finish.abandon(run)
        elif journal.fold(run).live and origin.doubt(run) is not None and not origin.lives(run):
            foreign_runs.append(run)
        else:
            _stop(run, request)
            reconcile.reconcile_run(host, run)
    for run in foreign_runs:
        origin.refuse(run)
    return {"runs": [records.record_of(run) for run in runs]}


def _stop(run: RunPaths, request: StopRequest) -> None:
    state = journal.fold(run)
    if not state.live:
        _kill_what_is_left(run)
        return
    records.refuse_newer(run)
    force = bool(request.get("force"))
    if state.stop is None or (force and not state.stop["force"]):
        grace = request.get("grace")
        if grace is None:
            grace = jobs.read_or_empty(run).get("grace", 60.0)
        journal.record(run, "stop", reason="stop", grace=grace, force=force, by=request.get("owner"))
    if state.state in (
        words.CREATED,
        words.SYNCING,
    ):  # it has no supervisor yet, and `start` reads the journal first
        finish.end(run, words.STOPPED, "stop", message="stopped before the job was started")


def _kill_what_is_left(run: RunPaths) -> None:
    """Kill a job that still runs although its run has ended: no supervisor watches it. Its files stay."""
    job = jobs.of_attempt(run)
    if job is None or not origin.is_of_this_host(run):
        return
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    if runtime.presence(run, job).kind == "running":
        runtime.signal(run, job, "KILL")
