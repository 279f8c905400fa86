"""`gpurun rm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.cli import complete, options, output
from gpurun.commands import remove
from gpurun.errors import HostUnreachable, UsageError

if TYPE_CHECKING:
    from gpurun.commands.unfetched import Held
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun rm train-7f3k
gpurun rm train-7f3k train-9k2m -y"""


def rm(
    run: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs that have ended.", autocompletion=complete.runs)
    ],
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Remove runs that have ended from their hosts: code, log, and what they wrote.

    Asks first when something that a run wrote is not on this laptop: it was never fetched, was written since, or what was
    fetched is not there any more.
    """
    from gpurun.commands import runs, unfetched

    entries = runs.resolve_all(run)
    try:
        with output.activity(f"asking {', '.join(runs.by_host(entries))}"):
            seen = unfetched.unfetched_on_each(entries)
    except HostUnreachable:
        if any(entry.record is not None for entry in entries):
            raise
        for entry in entries:  # a submit that broke off before a host ever spoke of it
            remove.forget(entry)
        output.say(
            f"forgot {', '.join(entry.id for entry in entries)}; the host never took it over, as far as is known"
        )
        return
    entries = runs.resolve_all([entry.id for entry in entries])
    runs.refuse_live(entries)
    _refuse_in_use(entries, seen)
    lost = unfetched.at_stake(entries, seen)
    if lost:
        first = next(entry.id for entry in entries if any(entry.id in ids for ids in lost.values()))
        fetch = "gpurun fetch --all" if unfetched.UNPROVEN in lost else f"gpurun fetch {first}"
        output.confirm(_question(entries, seen, lost), yes=yes, otherwise=f"{fetch}, or add -y")
    done = remove.remove(entries, seen)
    if as_json:
        output.json({"removed": done.runs, "freed": done.freed, "remains": done.remains})
        return
    output.say(f"removed {', '.join(done.runs)}; {output.size(done.freed)} are free again")
    for entry in entries:
        for host in [host for host, fetched in entry.left_on.items() if fetched is None]:
            output.note(f"what {entry.id} had left on {host} was never fetched, and stays there")
    for remark in done.remains:
        output.warn(remark)


def _refuse_in_use(entries: Sequence[RunEntry], seen: Sequence[Held]) -> None:
    hosts = {entry.id: entry.host for entry in entries}
    for one in seen:
        if one.live and one.host == hosts.get(one.run):
            next_step = f"gpurun fetch --watch {one.run}, which waits for it; then remove it"
            raise UsageError(f"a hook of {one.run} still runs on {one.host}", next_step)
        if one.shells and one.host == hosts.get(one.run):
            next_step = f"leave it (exit or Ctrl-D); or end it on {one.host}: {'; '.join(one.shells)}"
            raise UsageError(f"a shell is open in {one.run} on {one.host}", next_step)


def _question(entries: Sequence[RunEntry], seen: Sequence[Held], lost: Mapping[str, Sequence[str]]) -> str:
    from gpurun.commands import unfetched

    parts = [f"{', '.join(ids)} {'were' if len(ids) > 1 else 'was'} {why}" for why, ids in lost.items()]
    count = len({run for ids in lost.values() for run in ids})
    left = unfetched.left_at_stake(seen, entries)
    also = f" (nor what was left on {', '.join(left)})" if left else ""
    if also and set(lost) != {unfetched.NEVER}:
        also = f" (files on {', '.join(left)} are not here)"
    others = f", and {output.plural(len(entries) - count, 'other')}" if len(entries) > count else ""
    return f"{'; '.join(parts)}{also}. Remove {'it' if count == 1 else 'them'}{others} for good?"
