"""Build the job of a run for its present attempt, and locate the checkpoint from which the attempt starts."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Optional, cast

from .. import vocabulary as words
from ..files import read_json
from ..paths import RunPaths
from . import journal

if TYPE_CHECKING:
    from ..schema.checkpoint import PlacedCheckpoint
    from ..schema.job import AttemptJob, GpuRequest, Job


def read(run: RunPaths) -> Optional[Job]:
    """Return job.json, or None when it is missing or damaged."""
    job: Optional[Job] = read_json(run.job)
    return job


def read_or_empty(run: RunPaths) -> Job:
    """Return job.json, or an object without keys when it is missing or damaged: then read each key by `get`."""
    return read(run) or cast("Job", {})


def of_attempt(run: RunPaths, state: Optional[journal.Run] = None) -> Optional[AttemptJob]:
    """Return the job for the present attempt: with its number, the checkpoint that it resumes, and its GPUs.

    None when job.json is missing or damaged.
    """
    job = read(run)
    if job is None:
        return None
    state = state or journal.fold(run)
    begun = state.begun
    resources = job.get("resources")
    if begun.get("gpus") is not None:
        resources = {**resources, "gpus": cast("GpuRequest", begun["gpus"])}
    resume = _path_in_job(run, job, begun.get("checkpoint")) if begun else None
    return cast("AttemptJob", {**job, "resources": resources, "attempt": state.attempt, "resume": resume})


def of_attempt_or_empty(run: RunPaths, state: Optional[journal.Run] = None) -> AttemptJob:
    """Return the same, or an object with only an attempt when job.json is missing or damaged: then read the other keys
    by `get`.
    """
    return of_attempt(run, state) or cast("AttemptJob", {"attempt": 1, "resume": None})


def file_of(run: RunPaths, checkpoint: PlacedCheckpoint) -> str:
    """Return the path of a checkpoint that the journal names."""
    return os.path.join(run.root, str(checkpoint["file"]))


def _path_in_job(run: RunPaths, job: Job, checkpoint: Optional[PlacedCheckpoint]) -> Optional[str]:
    """Return the absolute path of the checkpoint inside the job."""
    if checkpoint is None:
        return None
    top = run.workspace if job["host"]["runtime"] == "bare" else words.WORKSPACE_MOUNT
    folder, _, inside = str(checkpoint["file"]).partition("/")
    if folder == "workspace":
        return top + "/" + inside
    if needs_staging(checkpoint):
        return "%s/%s/%s" % (top, words.RESUME_IN_WORKSPACE, posixpath.basename(inside))
    return str(checkpoint["path"])


def needs_staging(checkpoint: PlacedCheckpoint) -> bool:
    """Return whether the checkpoint is where no job sees it: it was written only in a container, or came from another
    host.
    """
    return str(checkpoint["file"]).startswith(("outside/", "carried/"))


def staged(run: RunPaths, checkpoint: PlacedCheckpoint) -> str:
    return os.path.join(run.staged, os.path.basename(str(checkpoint["file"])))
