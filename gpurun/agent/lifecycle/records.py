"""Build the RunRecord that the laptop gets of a run: a fold over job.json, events.jsonl, exit.json and the reports of
the plugin, with no state of its own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Dict, List, Optional, cast

from .. import clocks, error_codes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json
from ..images import inventory
from ..paths import HostPaths, RunPaths
from ..state import checkpoints, jobs, journal, moving, origin
from . import reconcile

if TYPE_CHECKING:
    from ..schema.job import AttemptJob, Git, Job
    from ..schema.run import Event, Mark, RunRecord, Step


def record_of(run: RunPaths, problem: Optional[str] = None) -> RunRecord:
    """Return the record of one run; times are unix seconds of the host's clock, sizes bytes.

    `problem`: what prevents this gpurun from reconciling the run, or None. When the run cannot be read, its state is
    `unknown`, and all other values are empty.
    """
    try:
        return _record_of(run, problem)
    except Exception as error:  # noqa: BLE001 (an unreadable run must not hide the others)
        return {**_empty_record(run.id), "problem": "the run cannot be read: %s" % reconcile.describe(error)}


def _record_of(run: RunPaths, problem: Optional[str]) -> RunRecord:
    state = journal.fold(run)
    job = _job(run, state)
    host, project, resources = job.get("host"), job.get("project"), job.get("resources")
    newer = why_newer(job, state)
    doubt = origin.doubt(run, job) if newer is None else None
    is_unknown = state.live and doubt is not None and not origin.lives(run)  # another machine's, which shows no life
    prepared = state.prepared
    record: RunRecord = {
        "problem": (newer and "%s; %s" % (newer, words.UPDATE)) or state.damaged or problem,
        "newer": newer is not None,
        "id": run.id,
        "name": job.get("name", run.id),
        "project": project.get("name") if project is not None else None,
        "owner": job.get("owner"),
        "script": job.get("script"),
        "args": job.get("args", []),
        "command": job.get("command", []),
        "git": _git(job),
        "state": words.UNKNOWN if is_unknown else state.state,
        "reason": state.reason,
        "message": doubt if is_unknown else state.message,
        "next": origin.ABANDON % run.id if is_unknown else state.next_step,
        "exit_code": state.exit_code,
        "attempt": state.attempt,
        "attempts": state.earlier,
        "moving": moving.summary(state),
        "resumed": state.begun.get("checkpoint"),
        "retries": {"asked": int(job.get("retries") or 0), "used": state.retried},
        "created": job.get("created"),
        "since": state.since,
        "started": state.started,
        "ended": state.ended,
        "ended_mark": _mark_of(state.end) if state.end and not state.live else None,
        "ran": state.end.get("ran"),
        "service": job.get("service"),
        "ports": job.get("ports", []),
        "gpus": state.gpus,
        "gpus_asked": resources.get("gpus") if resources is not None else None,
        "waiting": state.waiting,
        "step": _step(state),
        "runtime": host.get("runtime") if host is not None else None,
        "image": (prepared.get("image") if prepared is not None else None) or job.get("image") or job.get("dockerfile"),
        "digest": prepared.get("digest") if prepared is not None else None,
        "environment": inventory.summary(run),
        "disk": (read_json(run.usage) or {}).get("bytes"),
        "log_bytes": _size(run.log),
        "progress": checkpoints.progress(run),
        "metrics": checkpoints.metrics(run),
        "checkpoints": checkpoints.summary(run, state.live),
        "live": state.live and not is_unknown,
        "stop_requested": state.stop is not None,
        "kill_in": max(0.0, float(state.stop["grace"]) - clocks.since(state.stop)) if state.stop else None,
        "saving": state.live and checkpoints.is_saving(run),
        "stopped": checkpoints.stopped(run, state.attempt),
        "fetched": (read_json(run.fetched) or {}).get("t"),
        "notes": state.notes,
        "host_id": host.get("id") if host is not None else None,
        "here": doubt is None,
        "boot_id": host.get("boot_id") if host is not None else None,
    }
    return record


def _step(state: journal.Run) -> Optional[Step]:
    """Return the present step before the job starts, since when, and for how many seconds; None without a step."""
    if not state.live or not state.step:
        return None
    return {"doing": str(state.step.get("doing")), "since": state.step["t"], "seconds": clocks.since(state.step)}


def _job(run: RunPaths, state: journal.Run) -> AttemptJob:
    if not isinstance(jobs.read(run), dict) and os.path.exists(run.job):
        raise ValueError("%s is damaged" % run.job)
    return jobs.of_attempt_or_empty(run, state)


def _empty_record(run_id: str) -> RunRecord:
    """Return a record that contains only the run's id."""
    lists = ("args", "command", "attempts", "ports", "gpus", "notes")
    texts = (
        "project", "owner", "script", "git", "reason", "message", "next", "exit_code", "resumed", "created", "since",
        "started", "ended", "ended_mark", "ran", "service", "gpus_asked", "waiting", "step", "runtime", "image", "digest",
        "environment", "disk", "log_bytes", "progress", "checkpoints", "kill_in", "stopped", "fetched", "host_id", "boot_id", "here",
        "problem", "moving",
    )  # fmt: skip
    flags = ("live", "stop_requested", "saving", "newer")
    record: Dict[str, object] = {
        "id": run_id,
        "name": run_id,
        "state": words.UNKNOWN,
        "attempt": 1,
        "retries": {"asked": 0, "used": 0},
        "metrics": {},
        **{name: [] for name in lists},
        **dict.fromkeys(texts),
        **dict.fromkeys(flags, False),
    }
    return cast("RunRecord", record)


def why_newer(job: Job, state: journal.Run) -> Optional[str]:
    """Return why only a newer gpurun may change this run; None when this gpurun may."""
    schema = journal.schema_of(job)
    if schema > words.JOB_SCHEMA:
        return "a newer gpurun made it (its job has schema %s, and this gpurun reads up to %d)" % (
            job["schema"], words.JOB_SCHEMA,
        )  # fmt: skip
    return "a newer gpurun made it (%s)" % state.newer if state.newer else None


def refuse_newer(run: RunPaths) -> None:
    """Raise AgentError `newer` for a run that a newer gpurun made or continued: this gpurun changes nothing of it."""
    why = why_newer(jobs.read_or_empty(run), journal.fold(run))
    if why is not None:
        raise AgentError(
            error_codes.NEWER, "gpurun does not change the run %s: %s" % (run.id, why), words.UPDATE, where=run.root
        )


def refuse_damaged(run: RunPaths) -> None:
    """Raise AgentError `damaged` for a run whose journal cannot be read to its end: another attempt may have begun."""
    why = journal.fold(run).damaged
    if why is not None:
        next_step = "repair it there, or remove what cannot be read; or fetch the run and submit it again"
        raise AgentError(
            error_codes.DAMAGED, "gpurun does not change the run %s: %s" % (run.id, why), next_step, where=run.events
        )


def find(host: HostPaths, run_id: str) -> RunPaths:
    """Return the run with that id. Raises AgentError `no_run`."""
    run = host.run(run_id)
    if not re.fullmatch(words.RUN_ID, run_id) or not os.path.exists(run.job):
        raise AgentError(
            error_codes.NO_RUN, "the host has no run %s" % run_id, "gpurun ps -a", exit_code=words.EXIT_USAGE
        )
    return run


def find_all(host: HostPaths, run_ids: List[str]) -> List[RunPaths]:
    return [find(host, run_id) for run_id in run_ids]


def _git(job: Job) -> Optional[Git]:
    """Return the state of the repository without the patch, which may be large."""
    git = job.get("git")
    return {"commit": git.get("commit"), "branch": git.get("branch"), "dirty": git.get("dirty")} if git else None


def _mark_of(end: Event) -> Mark:
    return cast("Mark", {"up": end.get("up"), "boot": end.get("boot")})


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
