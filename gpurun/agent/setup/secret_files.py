"""What only a run's own job may read: its environment, a service's token. It lies in ROOT/secrets/<run-id>/, and in runs/ nothing.

The folder stays until the run is removed, empty once the run has ended: what is mounted must be there.
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
    """Make the run's folder, if it is not there: 0700, as the one that all of them lie in."""
    for folder in (run.host.secrets, run.secrets):
        os.makedirs(folder, mode=0o700, exist_ok=True)


def move_old(run: RunPaths) -> None:
    """Take what an older gpurun put into the run's ro/, before its job was started."""
    for old, new in ((run.old_env, run.env), (run.old_token, run.token)):
        with suppress(FileNotFoundError):
            os.rename(old, new)


def wipe(run: RunPaths) -> None:
    """Remove the run's secrets, in every place where a gpurun has put them."""
    for path in (run.env, run.token, run.old_env, run.old_token):
        remove(path)
    remove_copies(run)


def remove_copies(run: RunPaths) -> None:
    """Remove what an older gpurun copied out of the container of a TensorBoard: runs/, with what other runs had in their ro/."""
    copies = run.outside + run.host.runs
    if not os.path.isdir(copies):
        return
    service = jobs.read_or_empty(run).get("service")
    if service is not None and service["kind"] == words.TENSORBOARD:
        shutil.rmtree(copies, ignore_errors=True)
