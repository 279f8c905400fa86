"""`shell`: return the command line of a shell (or a command) inside a run's container or environment.

`{run, command, tty}` -> `{argv, path, ended}`; `path` is the run's workspace. A live run is entered; an ended run gets
a new container or process with its image and its workspace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import runtimes
from ..lifecycle import records
from ..paths import HostPaths
from ..state import jobs, journal, origin

if TYPE_CHECKING:
    from ..schema.answers import ShellAnswer
    from ..schema.requests import ShellRequest


def answer(request: ShellRequest, host: HostPaths) -> ShellAnswer:
    run = records.find(host, request["run"])
    records.refuse_newer(run)
    job = jobs.of_attempt_or_empty(run)
    origin.refuse(run, job)
    command = [str(word) for word in request.get("command") or []]
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    argv = runtime.shell(run, job, command, bool(request.get("tty", not command)))
    return {"argv": argv, "path": run.workspace, "ended": not journal.fold(run).live}
