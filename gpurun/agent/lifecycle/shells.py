"""Find the shells that people have open in ended runs: their files must not be removed."""

from __future__ import annotations

from typing import List

from .. import error_codes, runtimes
from .. import vocabulary as words
from ..errors import AgentError
from ..paths import RunPaths
from ..state import jobs, origin


def open_in(run: RunPaths) -> List[str]:
    """Return, for each shell in the run's workspace and each process started from one, the command that ends it on the
    host.

    Raises AgentError when the engine does not answer.
    """
    job = jobs.of_attempt(run)
    if job is None or not origin.is_of_this_host(run):
        return []
    return runtimes.load(job["host"]["runtime"], job["host"]["engine"]).shells(run, job)


def refuse(run: RunPaths) -> None:
    """Raise AgentError `live` while a shell is open in the run."""
    commands = open_in(run)
    if commands:
        next_step = "leave it (exit or Ctrl-D), then remove the run; or end it on the host: " + "; ".join(commands)
        raise AgentError(
            error_codes.LIVE,
            "a shell is open in the run %s" % run.id,
            next_step,
            where=run.workspace,
            exit_code=words.EXIT_USAGE,
        )
