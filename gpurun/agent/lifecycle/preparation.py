"""Create the workspace and the image or environment before the job starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Callable

from .. import clocks, manifest
from .. import vocabulary as words
from ..errors import RunFailed
from ..files import opened_below, sync_disk, sync_folder
from ..host import locks
from ..outputs import session_merge
from ..paths import RunPaths
from ..runtimes import Runtime
from ..setup import services
from ..state import journal
from . import attempts

if TYPE_CHECKING:
    from ..schema.job import AttemptJob
    from ..schema.run import Prepared

LITTLE = 64 << 20  # bytes: on a disk with less free space, that is why a copy failed


def prepare(run: RunPaths, job: AttemptJob, runtime: Runtime, check: Callable[[], None]) -> Prepared:
    """Prepare everything that the job needs before its GPUs. Idempotent.

    Returns what the runtime made (image, digest, environment). Raises RunFailed, and what `check` raises: it is called
    at least every second, so that a stop ends a build.
    """
    try:
        make_workspace(run, job, check)
        attempts.stage(run)
        with open(run.prepare_log, "ab", buffering=0) as log:

            def say(text: bytes) -> None:
                log.write(text)
                check()

            return runtime.prepare(run, job, say)
    except OSError as error:
        raise _failed(run, str(error)) from error


def make_workspace(run: RunPaths, job: AttemptJob, check: Callable[[], None]) -> None:
    """Make the job's working directory: a complete copy of the snapshot, or nothing.

    A session continues in its last workspace.
    """
    os.makedirs(run.out, exist_ok=True)
    if not os.path.isdir(run.workspace) and services.kind(job) in (words.JUPYTER, words.SHELL):
        with locks.host_lock("sessions", check):  # two sessions that begin at once would both take the same workspace
            _continue_session(run, job)
    if not os.path.isdir(run.workspace):
        journal.record_step(run, "copying the project")
        check_snapshot(run)
        unfinished = run.workspace + ".new"
        shutil.rmtree(unfinished, ignore_errors=True)
        argv = ["cp", "-a", "--reflink=auto", run.snapshot, unfinished]
        copy = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if copy.returncode != 0:
            raise _failed(
                run, "gpurun could not make the workspace: " + copy.stderr.decode(errors="replace").strip()[-300:]
            )
        sync_disk(unfinished)  # an existing workspace is complete, even after a power cut
        os.rename(unfinished, run.workspace)
        sync_folder(run.root)
    with opened_below(run.workspace, words.TMP_IN_WORKSPACE):
        pass


def check_snapshot(run: RunPaths) -> None:
    """Compare the snapshot with its manifest, when the host was restarted since it arrived. Raises RunFailed `sync`.

    After a power cut, or on a disk that ignored a flush, there may be empty files that would run as the user's code.
    """
    state = journal.fold(run)
    if state.manifest is None or state.sent.get("boot") == clocks.mark()["boot"]:
        return
    difference = manifest.difference(run.snapshot, state.manifest)
    if difference is not None:
        what = "the host was restarted, and its copy of the project differs from what was sent: " + difference
        raise RunFailed("sync", what, "submit again")


def _continue_session(run: RunPaths, job: AttemptJob) -> None:
    earlier = services.earlier(run.host, run, job)
    if earlier is not None:
        journal.record(run, "note", message="continues with the files of %s" % earlier.id)
        for path in session_merge.take_over(earlier, run):
            beside = "%s was changed on both sides: the host's file stays, the new file is %s%s" % (
                path, path, session_merge.BESIDE,
            )  # fmt: skip
            journal.record(run, "note", message=beside)
        journal.record(earlier, "note", message="its files continue in %s" % run.id, went_on=run.id)


def _failed(run: RunPaths, what: str) -> RunFailed:
    if shutil.disk_usage(run.root).free < LITTLE:
        return RunFailed(
            "disk", "the host's disk is full", "gpurun prune --fetched, or name a roomier root for the host"
        )
    return RunFailed("internal", what)
