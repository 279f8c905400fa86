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

LITTLE = 64 << 20  # bytes: a disk with less than this free is why a copy failed


def prepare(run: RunPaths, job: AttemptJob, runtime: Runtime, check: Callable[[], None]) -> Prepared:
    """Make everything ready that the job needs before its GPUs. Idempotent.

    Returns what the runtime made (image, digest, environment). Raises RunFailed, and what `check` raises: it is called at
    least every second, so that a stop ends a build.
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
    """The job's working directory: a copy of the snapshot, whole or not there. A session goes on in its last one."""
    os.makedirs(run.out, exist_ok=True)
    if not os.path.isdir(run.workspace) and services.kind(job) in (words.JUPYTER, words.SHELL):
        with locks.host_lock("sessions", check):  # two that begin at once would both take the same one
            _take_over(run, job)
    if not os.path.isdir(run.workspace):
        journal.record_step(run, "copying the project")
        check_snapshot(run)
        half = run.workspace + ".new"
        shutil.rmtree(half, ignore_errors=True)
        argv = ["cp", "-a", "--reflink=auto", run.snapshot, half]
        copy = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if copy.returncode != 0:
            raise _failed(
                run, "the workspace could not be made: " + copy.stderr.decode(errors="replace").strip()[-300:]
            )
        sync_disk(half)  # a workspace that is there is complete, after a power cut too
        os.rename(half, run.workspace)
        sync_folder(run.root)
    with opened_below(run.workspace, words.TMP_IN_WORKSPACE):
        pass


def check_snapshot(run: RunPaths) -> None:
    """Compare the snapshot with what arrived, where the host was restarted since. Raises RunFailed `sync`.

    A power cut, and a disk that did not keep what it was told to, leave empty files that would run as the user's code.
    """
    state = journal.fold(run)
    if state.manifest is None or state.sent.get("boot") == clocks.mark()["boot"]:
        return
    difference = manifest.difference(run.snapshot, state.manifest)
    if difference is not None:
        what = "the host was restarted, and the project is not on its disk as it was sent: " + difference
        raise RunFailed("sync", what, "submit again")


def _take_over(run: RunPaths, job: AttemptJob) -> None:
    earlier = services.earlier(run.host, run, job)
    if earlier is not None:
        journal.record(run, "note", message="goes on with the files of %s" % earlier.id)
        for path in session_merge.take_over(earlier, run):
            beside = "%s was changed on both sides: yours of the host stays, the new one is %s%s" % (
                path, path, session_merge.BESIDE,
            )  # fmt: skip
            journal.record(run, "note", message=beside)
        journal.record(earlier, "note", message="its files went on in %s" % run.id, went_on=run.id)


def _failed(run: RunPaths, what: str) -> RunFailed:
    if shutil.disk_usage(run.root).free < LITTLE:
        return RunFailed(
            "disk", "the host's disk is full", "gpurun prune --fetched, or name a roomier root for the host"
        )
    return RunFailed("internal", what)
