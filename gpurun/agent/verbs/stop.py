"""`stop`: write down that a stop is wanted. The supervisor acts on it, now or when it stands again.

Nothing is done to a run that is another machine's, or may be, and shows no life. With `abandon` it is given up: recorded as
lost, and this machine's from then on.
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
    """Raises AgentError: `elsewhere`, after the others were asked to end; see finish.abandon."""
    runs = records.find_all(host, request["runs"])
    not_ours: List[RunPaths] = []
    for run in runs:
        if request.get("abandon"):
            finish.abandon(run)
        elif journal.fold(run).live and origin.doubt(run) is not None and not origin.lives(run):
            not_ours.append(run)
        else:
            _stop(run, request)
            reconcile.reconcile_run(host, run)
    for run in not_ours:
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
    ):  # nobody supervises it yet, and `start` reads the journal first
        finish.end(run, words.STOPPED, "stop", message="stopped before the job was started")


def _kill_what_is_left(run: RunPaths) -> None:
    """A job that runs on though its run has ended is in nobody's care: it is killed, and what it wrote stays."""
    job = jobs.of_attempt(run)
    if job is None or not origin.is_of_this_host(run):
        return
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    if runtime.presence(run, job).kind == "running":
        runtime.signal(run, job, "KILL")
