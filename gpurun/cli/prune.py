"""`gpurun prune`."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.cli import describe, options, output
from gpurun.commands import remove
from gpurun.config.problems import read_option
from gpurun.config.units import span
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.commands.prune import Removal

EXAMPLES = """\
gpurun prune --fetched
gpurun prune --older-than 14d -H box"""


def prune(
    fetched: Annotated[bool, typer.Option("--fetched", help="Remove runs whose results are on this laptop.")] = False,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="Remove runs that ended longer ago, e.g. 14d.")
    ] = None,
    host: options.Host = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Remove many of your ended runs from their hosts. With both options, a run must meet both."""
    from gpurun.commands import prune as pruning
    from gpurun.commands import runs, unfetched
    from gpurun.config import hosts
    from gpurun.store import run_store

    if not fetched and older_than is None:
        raise UsageError("say which runs can go", "gpurun prune --fetched, or --older-than 14d, or both")
    age = read_option(
        "--older-than", older_than, lambda text: span(text, "d", "h", "m"), "gpurun prune --older-than 14d"
    )
    which = [hosts.choose(host)] if host else runs.hosts_of_interest(all_runs=True)
    found = runs.list_runs(which, {"all": True})
    chosen = pruning.choose(found, owner=getpass.getuser(), fetched=fetched, older_than=age)
    with output.activity("asking what the runs wrote"):
        entries = [entry for choice in chosen if (entry := run_store.find(choice.record["id"])) is not None]
        chosen = pruning.with_held(chosen, unfetched.unfetched_on_each(entries))
    chosen = [choice for choice in chosen if not any(one.live for one in choice.held)]  # a hook of it works
    for choice in [choice for choice in chosen if any(one.shells for one in choice.held)]:
        output.note(f"{choice.record['id']} stays: a shell is open in it")
        chosen.remove(choice)
    if fetched:
        chosen = _really_fetched(chosen)
    for one in found:
        if one.failure is not None:
            output.warn(f"{one.host} did not answer, so its runs stay: {describe.silence(one.failure)}")
    if found and all(one.failure is not None for one in found):
        assert found[0].failure is not None
        raise found[0].failure
    if chosen and not yes:
        rows = [[r.record["id"], describe.state(r.record), output.size(r.bytes), r.host, _fetched(r)] for r in chosen]
        if not as_json:
            output.table(["RUN", "STATE", "DISK", "HOST", "FETCHED"], rows, shrink=(3, 1))
        lost_runs = sum(choice.why_not_here is not None for choice in chosen)
        lost = f" {lost_runs} of them are not, or not all, on this laptop." if lost_runs else ""
        output.confirm(
            f"Remove {output.plural(len(chosen), 'run')}, {output.size(sum(r.bytes for r in chosen))}?{lost}",
            yes=yes,
            otherwise="add -y to remove them",
        )
    entries = [entry for choice in chosen if (entry := run_store.find(choice.record["id"])) is not None]
    done = remove.remove(entries, [one for choice in chosen for one in choice.held])
    if as_json:
        output.json({"removed": done.runs, "freed": done.freed, "remains": done.remains})
        return
    output.say(f"removed {output.plural(len(done.runs), 'run')}; {output.size(done.freed)} are free again")
    for remark in done.remains:
        output.warn(remark)


def _really_fetched(chosen: Sequence[Removal]) -> list[Removal]:
    """Those of which nothing would be lost; tells the others, which were fetched once."""
    from gpurun.commands import unfetched

    for choice in chosen:
        if choice.why_not_here is not None:
            output.note(f"{choice.record['id']} stays: it was {choice.why_not_here}")
    if any(choice.why_not_here == unfetched.UNPROVEN for choice in chosen):
        output.note("gpurun fetch --all, once for each project, proves it or brings what is missing")
    return [choice for choice in chosen if choice.why_not_here is None]


def _fetched(choice: Removal) -> str:
    from gpurun.commands import unfetched

    if choice.held and all(one.nothing for one in choice.held):
        return "nothing"  # there was nothing to fetch
    words = {None: "yes", unfetched.NEVER: "never", unfetched.ELSEWHERE: "elsewhere", unfetched.UNPROVEN: "no proof"}
    return words.get(choice.why_not_here, "not all")
