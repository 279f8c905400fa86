"""`gpurun rm`."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.cli import complete, options, output
from gpurun.errors import HostUnreachable

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
    """Remove runs from their hosts: code, log, and what they wrote. A live run is refused.

    What was never fetched is gone then, so it is asked about.
    """
    from gpurun import runs

    entries = runs.resolve_all(run)
    try:
        with output.activity(f"asking {', '.join(runs.by_host(entries))}"):
            runs.look(entries)
    except HostUnreachable:
        if any(entry.record is not None for entry in entries):
            raise
        for entry in entries:  # a submit that broke off before a host ever spoke of it
            runs.forget(entry)
        output.say(
            f"forgot {', '.join(entry.id for entry in entries)}; the host never took it over, as far as is known"
        )
        return
    entries = runs.resolve_all([entry.id for entry in entries])
    runs.refuse_live(entries)
    never = [entry for entry in entries if not entry.all_fetched and runs.wrote_something(entry)]
    if never:
        names = ", ".join(entry.id for entry in never) + (" were" if len(never) > 1 else " was")
        left = sorted({host for entry in never for host, fetched in entry.left_on.items() if fetched is False})
        also = f" (nor what was left on {', '.join(left)})" if left else ""
        others = f", and {output.plural(len(entries) - len(never), 'other')}" if len(entries) > len(never) else ""
        question = f"{names} never fetched whole{also}. Remove {'it' if len(never) == 1 else 'them'}{others} for good?"
        output.confirm(question, yes=yes, otherwise=f"gpurun fetch {never[0].id}, or add -y")
    freed = runs.remove(entries)
    if as_json:
        output.json({"removed": [entry.id for entry in entries], "freed": freed})
    else:
        output.say(f"removed {', '.join(entry.id for entry in entries)}; {output.size(freed)} are free again")
        for entry in entries:
            for host in [host for host, fetched in entry.left_on.items() if fetched is None]:
                output.note(f"what {entry.id} had left on {host} was never fetched, and stays there")
