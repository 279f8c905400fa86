"""The job of a run as its present attempt runs it, and where the checkpoint lies that the attempt begins from."""

from __future__ import annotations

import os
import posixpath
from typing import Any, Dict, Optional

from .. import vocabulary as words
from ..files import read_json
from ..paths import RunPaths
from . import journal

Job = Dict[str, Any]
Entry = Dict[str, Any]


def job_of(run: RunPaths, state: Optional[journal.Run] = None) -> Optional[Job]:
    """job.json as the present attempt runs it: with its number, the checkpoint it goes on from, and its GPUs."""
    job: Optional[Job] = read_json(run.job)
    state = state or journal.fold(run)
    if job is None or not state.begun:
        return job
    job["attempt"] = state.attempt
    job["resume"] = _as_the_job_sees(run, job, state.begun.get("checkpoint"))
    if state.begun.get("gpus") is not None:
        job["resources"] = {**job["resources"], "gpus": state.begun["gpus"]}
    return job


def file_of(run: RunPaths, checkpoint: Entry) -> str:
    """Where a checkpoint lies that the journal tells of."""
    return os.path.join(run.root, str(checkpoint["file"]))


def _as_the_job_sees(run: RunPaths, job: Job, checkpoint: Optional[Entry]) -> Optional[str]:
    """The absolute path of the checkpoint that the job is told."""
    if checkpoint is None:
        return None
    top = run.workspace if job["host"]["runtime"] == "bare" else words.WORKSPACE_MOUNT
    folder, _, inside = str(checkpoint["file"]).partition("/")
    if folder == "workspace":
        return top + "/" + inside
    if needs_staging(checkpoint):
        return "%s/%s/%s" % (top, words.RESUME_IN_WORKSPACE, posixpath.basename(inside))
    return str(checkpoint["path"])


def needs_staging(checkpoint: Entry) -> bool:
    """It lies where no job sees it: it was written in a container alone, or came from another host."""
    return str(checkpoint["file"]).startswith(("outside/", "carried/"))


def staged(run: RunPaths, checkpoint: Entry) -> str:
    return os.path.join(run.staged, os.path.basename(str(checkpoint["file"])))
