"""`gpurun wait`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.cli import describe, options, output
from gpurun.cli.terminal import can_redraw
from gpurun.config.problems import read_option
from gpurun.config.units import span
from gpurun.remote import records

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun wait
gpurun wait train-7f3k train-9k2m --timeout 1h"""

EXIT_TIMEOUT = 124  # as timeout(1) has it


def wait(
    run: options.Runs = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="SPAN", help="Stop waiting after this time, with exit code 124.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Wait until runs have ended, and exit with the exit code of the job.

    With several runs it is the first exit code that is not 0, in the order of the names.
    """
    from gpurun.commands import runs
    from gpurun.commands import wait as waits

    limit = read_option("--timeout", timeout, span, "--timeout 5m")
    deadline = None if limit is None else time.monotonic() + limit
    entries = runs.resolve_all(run)
    waited_for = f"waiting for {', '.join(map(_known, entries))}"
    if not can_redraw(sys.stderr):
        output.note(waited_for)  # a host that does not answer is not told for a while
    with output.activity(waited_for) as say:
        waiting = waits.Waiting(
            left=lambda: math.inf if deadline is None else deadline - time.monotonic(),
            ended=_tell_end,
            lost=lambda host, error: say(f"no contact with {host} ({error.what}); waiting on"),
        )
        ended = waits.until_ended(entries, waiting)
    if as_json:
        output.json([_outcome(entry, ended.get(entry.id)) for entry in entries])
    if len(ended) < len(entries):
        open_ones = ", ".join(entry.id for entry in entries if entry.id not in ended)
        output.warn(f"the time is over, and {open_ones} goes on")
        return EXIT_TIMEOUT
    codes = [records.exit_code(ended[entry.id]) or 0 for entry in entries]
    return next((code for code in codes if code), 0)


def _known(entry: RunEntry) -> str:
    """`train-7f3k on box (running 2m ago)`."""
    seen = f" ({describe.state(entry.record)} {output.ago(entry.seen)} ago)" if entry.record and entry.seen else ""
    return f"{entry.id} on {entry.host}{seen}"


def _tell_end(record: RunRecord) -> None:
    output.say(f"{record['id']} {describe.outcome(record)}")


def _outcome(entry: RunEntry, record: RunRecord | None) -> dict[str, object]:
    known: Mapping[str, object] = record or entry.record or {"id": entry.id, "state": entry.state}
    return {**known, "host": entry.host, "exit": records.exit_code(record) if record else None}
