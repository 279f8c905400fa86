"""Manage the files that only a run's own job may read: its environment and a service's token.

They are in ROOT/secrets/<run-id>/, never in runs/.

The folder stays until the run is removed, empty once the run has ended: a mounted folder must exist.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from .. import vocabulary as words
from ..files import remove
from ..paths import RunPaths
from ..state import jobs


def make_folder(run: RunPaths) -> None:
    """Make the run's folder when it is missing, with mode 0700 like the folder of all secrets."""
    for folder in (run.host.secrets, run.secrets):
        os.makedirs(folder, mode=0o700, exist_ok=True)


def move_old(run: RunPaths) -> None:
    """Move the files that an older gpurun wrote into the run's ro/, before its job is started."""
    for old, new in ((run.old_env, run.env), (run.old_token, run.token)):
        with suppress(FileNotFoundError):
            os.rename(old, new)


def wipe(run: RunPaths) -> None:
    """Remove the run's secrets, from every place where any version of gpurun stored them."""
    for path in (run.env, run.token, run.old_env, run.old_token):
        remove(path)
    remove_copies(run)


def remove_copies(run: RunPaths) -> None:
    """Remove what an older gpurun copied out of the container of a TensorBoard: runs/, with the files in the ro/ of
    other runs.
    """
    copies = run.outside + run.host.runs
    if not os.path.isdir(copies):
        return
    service = jobs.read_or_empty(run).get("service")
    if service is not None and service["kind"] == words.TENSORBOARD:
        shutil.rmtree(copies, ignore_errors=True)
