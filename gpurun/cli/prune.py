"""`gpurun prune`."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from gpurun.cli import describe, options, output
from gpurun.cli.logs import seconds
from gpurun.errors import UsageError

EXAMPLES = """\
gpurun prune --fetched
gpurun prune --older-than 14d -H box"""


def prune(
    fetched: Annotated[bool, typer.Option("--fetched", help="Runs whose results are on this laptop.")] = False,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="Runs that ended before, e.g. 14d.")
    ] = None,
    host: options.Host = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Remove many ended runs of yours from their hosts. With both options a run must meet both."""
    from gpurun import index, runs
    from gpurun import prune as pruning
    from gpurun.config import hosts

    if not fetched and older_than is None:
        raise UsageError("say which runs can go", "gpurun prune --fetched, or --older-than 14d, or both")
    span = None if older_than is None else seconds(older_than, "--older-than")
    which = [hosts.choose(host)] if host else runs.hosts_of_interest(all_runs=True)
    found = runs.list_runs(which, {"all": True})
    chosen = pruning.choose(found, owner=getpass.getuser(), fetched=fetched, older_than=span)
    for one in found:
        if one.failure is not None:
            output.warn(f"{one.host} did not answer, so its runs stay: {describe.silence(one.failure)}")
    if chosen and not yes:
        rows = [
            [r.record["id"], describe.state(r.record), output.size(r.bytes), r.host, "yes" if r.fetched else "never"]
            for r in chosen
        ]
        if not as_json:
            output.table(["RUN", "STATE", "DISK", "HOST", "FETCHED"], rows, shrink=(3, 1))
        never = sum(not removal.fetched for removal in chosen)
        lost = f" {never} of them never fetched." if never else ""
        output.confirm(
            f"Remove {output.plural(len(chosen), 'run')}, {output.size(sum(r.bytes for r in chosen))}?{lost}",
            yes=yes,
            otherwise="add -y to remove them",
        )
    entries = [entry for removal in chosen if (entry := index.find(removal.record["id"])) is not None]
    freed = runs.remove(entries) if entries else 0
    if as_json:
        output.json({"removed": [entry.id for entry in entries], "freed": freed})
    else:
        output.say(f"removed {output.plural(len(entries), 'run')}; {output.size(freed)} are free again")
