"""What the record that a host answers of a run means here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.errors import GpurunError

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord

EXIT_STOPPED = 143  # what a shell says of a program that TERM ended


def exit_code(record: RunRecord) -> int | None:
    """What `wait` and `submit -f` end with: the job's own code. None while the run is live.

    A run that did not succeed never gives 0: 143 when it was stopped or out of time, 125 when the job never ran.
    """
    if not words.is_over(record):
        return None
    if record["state"] == words.SUCCEEDED:
        return 0
    if record["state"] in (words.STOPPED, words.TIMED_OUT):
        return record["exit_code"] or EXIT_STOPPED
    return record["exit_code"] or words.EXIT_FAILED


def refuse_unknown(record: RunRecord, host: str) -> None:
    """Raise GpurunError for a run that its host answers for and knows nothing of: whoever waits for it may wait for ever."""
    if record["state"] != words.UNKNOWN:
        return
    run = record["id"]
    what = record.get("message") or record.get("problem") or f"{run} cannot be read"
    raise GpurunError(what, record.get("next") or f"gpurun status {run}", where=host)
