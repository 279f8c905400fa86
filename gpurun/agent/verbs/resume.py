"""`resume`: continue an ended run with its next attempt: the same code, image and arguments, from a checkpoint.

Request: `{run, ask, from: null|"last"|"best"|path, gpus: null|number|"all", env: {name: value}, follow: bool}`. `ask`
identifies the request, so that repeating it begins no second attempt. Answer: `{run: RunRecord}`; its `resumed` is the
checkpoint, null when the job starts from the beginning. With `follow` the log of the new attempt is sent on the same
channel.

A run from another host was prepared and sent as for `start`, with its checkpoint in `carried/`. Then the request also
has `manifest`, null when its code was here already, and `carried: {checkpoint, attempt, earlier, progress}` (see
attempts.begin).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Dict, List, Optional

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import sync_disk
from ..host import facts, locks
from ..lifecycle import attempts, finish, reconcile, records, supervisor
from ..paths import HostPaths, RunPaths
from ..setup import services, wrapper
from ..state import checkpoints, jobs, journal, moving, origin, snapshots
from . import prepare, start

if TYPE_CHECKING:
    from ..schema.answers import RunAnswer
    from ..schema.job import Job
    from ..schema.requests import Carried, ResumeRequest
    from ..schema.run import Manifest

PATIENCE = 20.0  # seconds to wait for the supervisor of an ended run


def answer(request: ResumeRequest, host: HostPaths) -> RunAnswer:
    """Raise AgentError: `live`, `moving`, `moved`, `revoked`, `elsewhere`, `env`, `no_checkpoint`, `too_many_gpus`."""
    run = records.find(host, request["run"])
    records.refuse_newer(run)
    records.refuse_damaged(run)
    reconcile.reconcile_run(host, run)
    if not moving.has_begun(run, request["ask"]):
        _begin(run, host, request)
    # Not under the run's lock, which the supervisor takes.
    if journal.fold(run).live:
        supervisor.launch_or_end(run)
    return {"run": records.record_of(run)}


stream = start.stream


def _begin(run: RunPaths, host: HostPaths, request: ResumeRequest) -> None:
    job = jobs.of_attempt_or_empty(run)
    carried = request.get("carried")
    if not (carried and journal.fold(run).state in attempts.UPLOADING):
        refuse(run, job, carried=carried is not None)
    _check_env(job, request["env"])
    gpus = request.get("gpus")
    if gpus is not None:
        prepare.check_gpus(gpus, facts.host_facts(host, request.get("engine")))
    held = take_lock(run)
    try:
        state = journal.fold(run)
        if state.live and not (carried and state.state in attempts.UPLOADING):
            raise _live_error(run, state)
        if carried:
            _check_is_newest(run, state, carried)
            _check_arrival(run, host, job, carried, request.get("manifest"))
        origin.adopt(run)
        attempts.begin(
            run,
            "resume",
            wanted=request.get("from"),
            carried=carried,
            gpus=gpus,
            ask=request["ask"],
            by=request.get("owner"),
            # Before the event: after it, any verb may start a supervisor. After the move of exit.json: a verb that
            # reconciles removes the secrets of an ended run.
            before=lambda: wrapper.write_env(run, request["env"]),
        )
    except BaseException:
        if not journal.fold(run).live:
            with suppress(OSError):  # the next verb does it, and the first error is the one to report
                attempts.put_back(run)
            finish.wipe(run)
        raise
    finally:
        held.release()


def _check_is_newest(run: RunPaths, state: journal.Run, carried: Carried) -> None:
    """Raise AgentError when the run has continued here: the laptop has no record of it, and would send an older state."""
    if state.attempt > carried["attempt"]:
        what = "the run %s has already continued here, as attempt %d" % (run.id, state.attempt)
        raise AgentError(error_codes.WENT_ON, what, "gpurun ps -a updates this laptop; then gpurun resume %s" % run.id)


def _check_arrival(run: RunPaths, host: HostPaths, job: Job, carried: Carried, sent: Optional[Manifest]) -> None:
    """Raise AgentError when the code or the checkpoint did not arrive completely."""
    if sent:
        start.check_snapshot(run, sent)
    checkpoint = carried["checkpoint"]
    if checkpoint and not checkpoints.is_complete(jobs.file_of(run, checkpoint), checkpoint):
        raise AgentError(
            error_codes.NOT_COMPLETE, "the checkpoint %s did not arrive completely" % checkpoint["path"], "resume again"
        )
    sync_disk(run.root)  # the other host hands the run over because of this
    if sent:
        snapshots.note_complete(host, job["project"]["name"], run)


def refuse(run: RunPaths, job: Job, *, carried: bool = False) -> None:
    """Raise AgentError for a run that is live, never arrived, is a service, or belongs to another host.

    A run that continued on another host is resumed there, unless it comes back `carried`.
    """
    origin.refuse(run, job)
    state = journal.fold(run)
    if state.live:
        raise _live_error(run, state)
    if state.moved and not carried:
        what = "the run %s continues on %s" % (run.id, state.moved)
        raise AgentError(error_codes.MOVED, what, "gpurun ps -a -H %s" % state.moved, exit_code=words.EXIT_USAGE)
    if not carried:
        moving.refuse(run)
    if not state.arrived:
        raise AgentError(
            error_codes.NOT_SENT, "the project of run %s never arrived completely" % run.id, "submit it again"
        )
    if services.kind(job) is not None:
        raise AgentError(
            error_codes.SERVICE,
            "%s is a service, which cannot be resumed" % run.id,
            "start a new one: gpurun tunnel, or gpurun shell",
            exit_code=words.EXIT_USAGE,
        )


def _check_env(job: Job, env: Dict[str, str]) -> None:
    missing: List[str] = [name for name in job.get("env") or [] if name not in env]
    if missing:
        what = "the run needs %s, which was removed at its end" % ", ".join(missing)
        raise AgentError(error_codes.ENV, what, "set it and resume again", exit_code=words.EXIT_USAGE)


def _live_error(run: RunPaths, state: journal.Run) -> AgentError:
    what = "the run %s is still %s, as attempt %d" % (run.id, state.state, state.attempt)
    return AgentError(
        error_codes.LIVE, what, "gpurun logs -f %s, or gpurun stop %s first" % (run.id, run.id), exit_code=2
    )


def take_lock(run: RunPaths) -> locks.Held:
    """Take the run's lock.

    The supervisor of a run that has just ended may hold it for a moment, or while its hook runs.
    """
    held = locks.acquire_within(locks.run_lock(run.id), PATIENCE)
    if held is None:
        what = "run %s is still ending: its last steps still run" % run.id
        raise AgentError(error_codes.BUSY, what, "try again in a minute")
    return held
