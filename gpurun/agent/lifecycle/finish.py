"""How a run ends: what is recorded of it, and what must not outlive it."""

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

SHUTDOWN_LASTS = 900.0  # seconds from the TERM to a supervisor until a host that shuts down is off
STOPPED_FROM_OUTSIDE = (
    "the job was stopped from outside (docker stop, or the engine was shut down), and ended with 0 by that"
)


def end(run: RunPaths, state: str, reason: str, **facts_of_end: Unpack[FactsOfEnd]) -> None:
    """Record the end, and wipe what must not outlive the run; or that of an attempt alone, when it is to be retried."""
    again = retries_left(run, state, reason) > 0
    job = jobs.read_or_empty(run)
    journal.record_end(run, state, reason, again=again, owes=bool(job.get(hooks.ON_END)) and not again, **facts_of_end)
    if not again:
        finish(run, job)
    with suppress(OSError):
        checkpoints.note_summary(run)
    note_disk_use(run)


def abandon(run: RunPaths) -> None:
    """Give up a run whose machine is gone: it is lost if it was live, and this machine's from now on. Safe to repeat.

    Raises AgentError: `not_abandoned` for a run of this machine, or one whose supervisor lives; `busy`.
    """
    why = origin.doubt(run)
    if why is None:
        if journal.fold(run).live:
            what = "%s is of this host, which can end it" % run.id
            raise AgentError(
                error_codes.NOT_ABANDONED, what, "gpurun stop --force " + run.id, exit_code=words.EXIT_USAGE
            )
        return
    held = locks.acquire(locks.run_lock(run.id))
    if held is None:
        raise AgentError(error_codes.BUSY, "somebody else looks after %s just now" % run.id, "try again")
    try:
        if origin.lives(run):
            raise AgentError(
                error_codes.NOT_ABANDONED, "%s lives: its machine looks after it" % run.id, "ask that host to stop it"
            )
        if journal.fold(run).live:
            end(run, words.LOST, "abandoned", message="given up: " + why)
        origin.adopt(run)
    finally:
        held.release()


def retries_left(run: RunPaths, state: str, reason: str) -> int:
    """How many attempts may still begin by themselves behind this end: none behind a stop, or what would fail again."""
    known = journal.fold(run)
    if state not in (words.FAILED, words.LOST) or reason not in words.RETRIED or known.stop is not None:
        return 0
    return int(jobs.read_or_empty(run).get("retries") or 0) - known.retried


def finish(run: RunPaths, job: Job) -> None:
    """Do what a run that has ended still owes, and wipe what must not outlive it. The caller holds the run's lock, or has
    recorded the end. Safe to repeat.
    """
    with suppress(OSError):  # it is owed until it has run: the next verb tries again
        hooks.at_end(run, job)
    wipe(run)


def is_finished(run: RunPaths) -> bool:
    """Return whether nothing is left to do behind the run's end."""
    secrets = (run.env, run.token, run.old_env, run.old_token)
    copies = run.outside + run.host.runs  # see secret_files.remove_copies
    left = (run.owed, *secrets, run.sockets, sockets.way_to_tmp(run), copies)
    return not any(map(os.path.lexists, left))


def wipe(run: RunPaths) -> None:
    """Take away the user's secrets, the doors of a service, and what lets the wrapper start the job."""
    wrapper.disarm(run)
    services.wipe(run)
    secret_files.wipe(run)


def end_by_presence(run: RunPaths, state: journal.Run, presence: Presence) -> None:
    """Record the end of a job that has exited. Success needs exit code 0, no stop request, and no signal from outside.

    `presence` is completed by `Runtime.ended`.
    """
    code = presence.exit_code
    stop = state.stop
    if stop is not None:
        kind = words.TIMED_OUT if stop.get("reason") == "duration" else words.STOPPED
        end(run, kind, stop.get("reason", "stop"), exit_code=code)
    elif _shut_down(run, state, presence):
        end(run, words.LOST, "reboot", exit_code=code, message="the host was shut down while the job ran")
    elif presence.restarted:
        end(run, words.LOST, "restarted", message=words.REASONS["restarted"])
    elif presence.made_up:
        end(run, words.LOST, "engine", message=words.REASONS["engine"])
    elif code == 0 and (presence.signalled or checkpoints.stopped(run, state.attempt) is not None):
        # The plugin tells of a stop that it carried out: we asked for none, so it was a TERM of somebody else's.
        end(run, words.FAILED, "signal", exit_code=code, message=STOPPED_FROM_OUTSIDE)
    elif code == 0 and presence.unseen and not checkpoints.has_plugin(run, state.attempt):  # it would tell of a TERM
        look = "its log and its files tell: gpurun logs " + run.id
        end(run, words.LOST, "unseen", exit_code=code, message=words.REASONS["unseen"], next=look)
    elif code == 0:
        end(run, words.SUCCEEDED, "exit", exit_code=0)
    elif code == 137 and presence.oom:
        end(run, words.FAILED, "oom", exit_code=code, message="the job ran out of the memory it was given")
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


def _shut_down(run: RunPaths, state: journal.Run, presence: Presence) -> bool:
    """Return whether it was the host's going down that ended the job, whatever its exit code: many save and leave with 0."""
    if state.shutdown is None:
        return False
    if presence.finished_at is not None and presence.finished_at > state.shutdown + SHUTDOWN_LASTS:
        return False
    if not machine.is_this_boot(state.boot_id):
        return True
    # Still the same boot: the host is on its way down, or somebody has ended the supervisor alone. A plugin was asked to
    # save and end; another job was asked nothing by us.
    return presence.signalled or checkpoints.has_plugin(run, state.attempt)


def end_gone(run: RunPaths, state: journal.Run) -> None:
    """Nothing is there of a job that ran, and it left no exit: why."""
    host = jobs.read_or_empty(run).get("host")
    is_bare = host is not None and host.get("runtime") == "bare"
    if not machine.is_this_boot(state.boot_id):
        end(run, words.LOST, "reboot", message="the host was restarted while the job ran")
    elif is_bare and state.stop is not None:  # it may have died of our KILL
        end_by_presence(run, state, Presence("exited"))
    elif is_bare:
        look = "its log and its files tell: gpurun logs " + run.id
        end(run, words.LOST, "keeper", message=words.END_NOT_KNOWN, next=look)
    else:
        end(run, words.LOST, "removed", message="the job's container was removed from outside")


def note_disk_use(run: RunPaths) -> None:
    """For `ps`. What cannot be written is not known."""
    with suppress(OSError):
        write_json(run.usage, {"bytes": disk_use(run), **clocks.mark()})


def disk_use(run: RunPaths) -> int:
    """Bytes on disk that go when the run is removed: files that other snapshots share count for nothing here."""
    total = 0
    for folder, _, names in os.walk(run.root):
        for name in names:
            try:
                found = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if found.st_nlink == 1:
                total += found.st_blocks * 512
    return total
