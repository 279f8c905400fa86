"""`start`: the project has arrived; a supervisor runs the run from here."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from .. import error_codes, manifest
from .. import vocabulary as words
from ..errors import AgentError
from ..files import sync_disk
from ..host import locks
from ..lifecycle import logs, reconcile, records, supervisor
from ..paths import HostPaths, RunPaths
from ..queue import tickets
from ..setup import wrapper
from ..state import jobs, journal, origin, snapshots

if TYPE_CHECKING:
    from ..frames import Frames
    from ..schema.answers import RunAnswer
    from ..schema.requests import StartRequest
    from ..schema.run import Manifest


def answer(request: StartRequest, host: HostPaths) -> RunAnswer:
    """Check the snapshot against the laptop's manifest, draw the ticket, start the supervisor. Safe to repeat."""
    run = records.find(host, request["run"])
    records.refuse_newer(run)
    job = jobs.read(run)
    assert job is not None
    if job["token"] != request["token"]:
        raise AgentError(
            error_codes.ID_TAKEN, "the run %s on this host belongs to another submit" % run.id, "submit again"
        )
    if origin.doubt(run, job) is not None:
        raise AgentError(
            error_codes.ELSEWHERE,
            "the run %s was prepared on another host that shares this home" % run.id,
            "submit again",
        )
    with locks.host_lock("start-" + run.id):
        state = journal.fold(run)
        if state.state in (words.CREATED, words.SYNCING):
            check_snapshot(run, request["manifest"])
            wrapper.write_env(run, request["env"])
            sync_disk(run.root)  # a queued run can start even after a power cut
            snapshots.note_complete(host, job["project"]["name"], run)
            number = None if job["resources"]["gpus"] == 0 else tickets.draw(run.id).number
            journal.record(run, words.QUEUED, ticket=number, manifest=request["manifest"])
    if not journal.fold(
        run
    ).live:  # it was stopped in the meantime: its end removed the secrets before they were written
        reconcile.reconcile_run(host, run)
    # Not under the lock: a supervisor would inherit it and hold it for its whole life.
    if journal.fold(run).live:
        supervisor.launch_or_end(run)
    return {"run": records.record_of(run)}


def stream(request: StartRequest, host: HostPaths, out: Frames) -> None:
    """With `follow`, send the log on the same channel, from its first byte."""
    if request.get("follow"):
        logs.follow(host.run(request["run"]), out, offset=0, prepare_offset=0)


def check_snapshot(run: RunPaths, expected: Manifest) -> None:
    """Raise AgentError `snapshot_differs` when the snapshot differs, and move it aside."""
    shutil.rmtree(run.snapshot_before, ignore_errors=True)
    difference = manifest.difference(run.snapshot, expected)
    if difference is not None:
        # The next upload starts with an empty folder, so deleted files do not remain, and links to the files that had
        # arrived.
        os.rename(run.snapshot, run.snapshot_before)
        os.mkdir(run.snapshot)
        raise AgentError(
            error_codes.SNAPSHOT_DIFFERS, "the project changed while it was sent: " + difference, "submit again"
        )
