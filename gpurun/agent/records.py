"""The RunRecord: what the laptop is told of a run. A fold over job.json, events.jsonl, exit.json and what the plugin reports,
nothing of its own.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, List, Optional

from . import about, attempts, checkpoints, journal
from . import vocabulary as words
from .errors import AgentError
from .files import read_json
from .paths import HostPaths, RunPaths


def record_of(run: RunPaths) -> Dict[str, Any]:
    """The record of one run; times are unix seconds of the host's clock, sizes bytes."""
    state = journal.fold(run)
    job = attempts.job_of(run, state) or {}
    host = job.get("host", {})
    return {
        "id": run.id,
        "name": job.get("name", run.id),
        "project": job.get("project", {}).get("name"),
        "owner": job.get("owner"),
        "script": job.get("script"),
        "args": job.get("args", []),
        "command": job.get("command", []),
        "git": _git(job),
        "state": state.state,
        "reason": state.reason,
        "message": state.message,
        "next": state.next_step,
        "exit_code": state.exit_code,
        "attempt": state.attempt,
        "attempts": state.earlier,
        "resumed": state.begun.get("checkpoint"),
        "retries": {"asked": int(job.get("retries") or 0), "used": state.retried},
        "created": job.get("created"),
        "since": state.since,
        "started": state.started,
        "ended": state.ended,
        "service": job.get("service"),
        "ports": job.get("ports", []),
        "gpus": state.gpus,
        "gpus_asked": job.get("resources", {}).get("gpus"),
        "waiting": state.waiting,
        "runtime": host.get("runtime"),
        "image": state.prepared.get("image") or job.get("image") or job.get("dockerfile"),
        "digest": state.prepared.get("digest"),
        "environment": about.summary(run),
        "disk": (read_json(run.usage) or {}).get("bytes"),
        "log_bytes": _size(run.log),
        "progress": checkpoints.progress(run),
        "metrics": checkpoints.metrics(run),
        "checkpoints": checkpoints.summary(run, state.live),
        "live": state.live,
        "stop_requested": state.stop is not None,
        "kill_in": max(0.0, state.stop["t"] + float(state.stop["grace"]) - time.time()) if state.stop else None,
        "saving": state.live and checkpoints.is_saving(run),
        "stopped": checkpoints.stopped(run, state.attempt),
        "fetched": (read_json(run.fetched) or {}).get("t"),
        "notes": state.notes,
        "host_id": host.get("id"),
        "boot_id": host.get("boot_id"),
    }


def find(host: HostPaths, run_id: str) -> RunPaths:
    """The run of that id. Raises AgentError `no_run`."""
    run = host.run(run_id)
    if not re.fullmatch(words.RUN_ID, run_id) or not os.path.exists(run.job):
        raise AgentError(
            "no_run", "there is no run %s on this host" % run_id, "gpurun ps -a", exit_code=words.EXIT_USAGE
        )
    return run


def find_all(host: HostPaths, run_ids: List[str]) -> List[RunPaths]:
    return [find(host, run_id) for run_id in run_ids]


def _git(job: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    git = job.get("git")
    return {key: git.get(key) for key in ("commit", "branch", "dirty")} if git else None


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
