"""`shell`: the command line that is a shell (or a command) inside a run's container or environment.

`{run, command, tty}` -> `{argv}`. A live run is entered; one that has ended gets a fresh container or process with its
image and its workspace.
"""

from __future__ import annotations

from typing import Any, Dict

from .. import attempts, records, runtimes, tend
from ..errors import AgentError
from ..paths import HostPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, request["run"])
    records.refuse_newer(run)
    job = attempts.job_of(run) or {}
    if not tend.is_of_this_host(run):
        where = job.get("host", {}).get("hostname", "another host")
        raise AgentError("elsewhere", "run %s belongs to %s, which shares this home" % (run.id, where), "ask that host")
    command = [str(word) for word in request.get("command") or []]
    runtime = runtimes.load(job["host"]["runtime"], job["host"]["engine"])
    return {"argv": runtime.shell(run, job, command, bool(request.get("tty", not command)))}
