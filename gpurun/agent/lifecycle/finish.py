"""End a run: record how it ended, and remove what must not outlive it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import clocks, error_codes, machine
from .. import vocabulary as words
from ..errors import AgentError
from ..files import write_json
from ..host import locks
from ..paths import RunPaths
from ..runtimes import Presence
from ..setup import secret_files, services, sockets, wrapper
from ..state import checkpoints, jobs, journal, origin
from . import hooks

if TYPE_CHECKING:
    from typing import Unpack  # novm

    from ..schema.job import Job
    from ..schema.run import FactsOfEnd

SHUTDOWN_LASTS = 900.0  # seconds from the TERM to a supervisor until the host has shut down
STOPPED_FROM_OUTSIDE = (
    "the job was stopped from outside (docker stop, or an engine that was shut down), and therefore ended with 0"
)


def end(run: RunPaths, state: str, reason: str, **facts_of_end: Unpack[FactsOfEnd]) -> None:
    """Record the end and remove what must not outlive the run.

    When retries are left, record only the end of the attempt.
    """
    again = retries_left(run, state, reason) > 0
    job = jobs.read_or_empty(run)
    journal.record_end(run, state, reason, again=again, owes=bool(job.get(hooks.ON_END)) and not again, **facts_of_end)
    if not again:
        finish(run, job)
    with suppress(OSError):
        checkpoints.note_summary(run)
    note_disk_use(run)


def abandon(run: RunPaths) -> None:
    """Abandon a run whose host is gone: a live run ends as lost, and the run then belongs to this host.

    Safe to repeat.

    Raises AgentError: `not_abandoned` for a run of this host, or one whose supervisor lives; `busy`.
    """
    why = origin.doubt(run)
    if why is None:
        if journal.fold(run).live:
            what = "%s belongs to this host, which can end it" % run.id
            raise AgentError(
                error_codes.NOT_ABANDONED, what, "gpurun stop --force " + run.id, exit_code=words.EXIT_USAGE
            )
        return
    held = locks.acquire(locks.run_lock(run.id))
    if held is None:
        raise AgentError(error_codes.BUSY, "another process works on %s right now" % run.id, "try again")
    try:
        if origin.lives(run):
            raise AgentError(
                error_codes.NOT_ABANDONED, "%s is live: its own host runs it" % run.id, "stop it on that host"
            )
        if journal.fold(run).live:
            end(run, words.LOST, "abandoned", message="abandoned: " + why)
        origin.adopt(run)
    finally:
        held.release()


def retries_left(run: RunPaths, state: str, reason: str) -> int:
    """Return how many attempts may still begin automatically after this end: none after a stop, or after a failure that
    would repeat.
    """
    run_state = journal.fold(run)
    if state not in (words.FAILED, words.LOST) or reason not in words.RETRIED or run_state.stop is not None:
        return 0
    return int(jobs.read_or_empty(run).get("retries") or 0) - run_state.retried


def finish(run: RunPaths, job: Job) -> None:
    """Do what remains to be done for an ended run, and remove what must not outlive it.

    The caller holds the run's lock, or has recorded the end. Safe to repeat.
    """
    with suppress(OSError):  # the hook is owed until it has run: the next verb tries again
        hooks.at_end(run, job)
    wipe(run)


def is_finished(run: RunPaths) -> bool:
    """Return whether nothing remains to be done after the run's end."""
    secrets = (run.env, run.token, run.old_env, run.old_token)
    copies = run.outside + run.host.runs  # see secret_files.remove_copies
    left = (run.owed, *secrets, run.sockets, sockets.tmp_link(run), copies)
    return not any(map(os.path.lexists, left))


def wipe(run: RunPaths) -> None:
    """Remove the user's secrets, the sockets of a service, and the file that lets the wrapper start the job."""
    wrapper.disarm(run)
    services.wipe(run)
    secret_files.wipe(run)


def end_by_presence(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    """Record the end of a job that has exited.

    Success requires exit code 0, no stop request, and no signal from outside.

    `presence` is completed by `Runtime.ended`.
    """
    code = presence.exit_code
    stop = state.stop
    if stop is not None:
        kind = words.TIMED_OUT if stop.get("reason") == "duration" else words.STOPPED
        end(run, kind, stop.get("reason", "stop"), exit_code=code)
    elif _was_shut_down(run, state, presence):
        end(run, words.LOST, "reboot", exit_code=code, message="the host was shut down while the job ran")
    elif presence.restarted:
        end(run, words.LOST, "restarted", message=words.REASONS["restarted"])
    elif presence.made_up:
        end(run, words.LOST, "engine", message=words.REASONS["engine"])
    elif code == 0 and (presence.signalled or checkpoints.stopped(run, state.attempt) is not None):
        # The plugin reports a stop that it carried out. gpurun requested none, so another process sent the TERM.
        end(run, words.FAILED, "signal", exit_code=code, message=STOPPED_FROM_OUTSIDE)
    elif (
        code == 0 and presence.unseen and not checkpoints.has_plugin(run, state.attempt)
    ):  # a plugin would report a TERM
        look = "check its log and its files: gpurun logs " + run.id
        end(run, words.LOST, "unseen", exit_code=code, message=words.REASONS["unseen"], next=look)
    elif code == 0:
        end(run, words.SUCCEEDED, "exit", exit_code=0)
    elif code == 137 and presence.oom:
        end(run, words.FAILED, "oom", exit_code=code, message="the job used more memory than its limit")
    elif code is not None and 128 < code <= 128 + 64:
        end(
            run,
            words.FAILED,
            "signal",
            exit_code=code,
            message="the job was killed by signal %d" % (code - 128),
        )
    else:
        end(run, words.FAILED, "exit", exit_code=code)


def _was_shut_down(run: RunPaths, state: journal.Run, presence: Presence) -> bool:
    """Return whether the host's shutdown ended the job, whatever its exit code: many jobs save and exit with 0."""
    if state.shutdown is None:
        return False
    if presence.finished_at is not None and presence.finished_at > state.shutdown + SHUTDOWN_LASTS:
        return False
    if not machine.is_this_boot(state.boot_id):
        return True
    # Still the same boot: the host is shutting down, or the supervisor alone was ended. A plugin was asked to save and
    # end; gpurun asked nothing of any other job.
    return presence.signalled or checkpoints.has_plugin(run, state.attempt)


def end_gone(run: RunPaths, state: journal.Run) -> None:
    """Record the end of a job that ran, is gone, and left no exit record."""
    host = jobs.read_or_empty(run).get("host")
    is_bare = host is not None and host.get("runtime") == "bare"
    if not machine.is_this_boot(state.boot_id):
        end(run, words.LOST, "reboot", message="the host was restarted while the job ran")
    elif is_bare and state.stop is not None:  # gpurun's KILL may have ended it
        end_by_presence(run, state, Presence("exited"))
    elif is_bare:
        look = "check its log and its files: gpurun logs " + run.id
        end(run, words.LOST, "keeper", message=words.END_NOT_KNOWN, next=look)
    else:
        end(run, words.LOST, "removed", message="the job's container was removed, but not by gpurun")


def note_disk_use(run: RunPaths) -> None:
    """Store the disk use for `ps`. When it cannot be written, it is unknown."""
    with suppress(OSError):
        write_json(run.usage, {"bytes": disk_use(run), **clocks.mark()})


def disk_use(run: RunPaths) -> int:
    """Return the bytes on disk that are freed when the run is removed.

    Files that other snapshots share do not count.
    """
    total = 0
    for folder, _, names in os.walk(run.root):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if status.st_nlink == 1:
                total += status.st_blocks * 512
    return total
