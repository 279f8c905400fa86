"""`gpurun stop`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import complete, describe, options, output
from gpurun.config.problems import read_option
from gpurun.config.units import span
from gpurun.errors import GpurunError, HostUnreachable, UsageError

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.stop import Asked
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun stop
gpurun stop train-7f3k --grace 5m
gpurun stop --force train-7f3k
gpurun stop --abandon train-7f3k"""


def stop(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Ids, names, or the beginnings of them. [the one live run of this project]",
            autocompletion=complete.runs,
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="SPAN", help="Time to save a checkpoint. [the grace time of the job, 60s]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Kill at once.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Record a run whose machine is gone as lost.")] = False,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            "-H",
            metavar="NAME",
            help="With --abandon: the host that has the run's home now.",
            autocompletion=complete.hosts,
        ),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Stop runs. The job is asked first, so that it can save a checkpoint, and killed when the grace time is over.

    Without RUN, the one live run of this project is stopped; when there are several, none is.

    --abandon is for a run that is shown as unknown, because its disk was cloned or another machine has its home now.
    When you know that its machine is gone for good, --abandon records the run as lost and touches nothing else; then it
    can be resumed or removed.
    """
    from gpurun.commands import runs
    from gpurun.commands import stop as stopping

    if abandon and (force or grace is not None or not run):
        what = "--abandon takes the names of runs, and neither --force nor --grace: nothing is ended"
        raise UsageError(what, "gpurun stop --abandon RUN")
    if host is not None and not abandon:
        raise UsageError("a run is stopped where it runs; --host is for --abandon alone", "leave out --host")
    entries = runs.resolve_all(run, live=True) if run else [stopping.only_live_run()]
    if host is not None:
        entries = [replace(entry, host=host) for entry in entries]
    asked = stopping.Asked(read_option("--grace", grace, span, "--grace 5m"), force, abandon)
    before = {entry.id for entry in entries if entry.ended}
    with output.activity(f"asking {', '.join(runs.by_host(entries))}"):
        records, away = _ask(entries, asked)
        twins = [twin for entry in entries for twin in runs.twins(entry)]
        silent = [twin for twin in twins if twin.seen is None]
        twins = [twin for twin in twins if twin.seen is not None]
        of_twins = [stopping.ask([twin], asked) for twin in twins]
    entries = entries if away is None else []
    for twin in silent:
        output.warn(f"an attempt of {twin.id} may still be {twin.state} on {twin.host}, which does not answer")
    with output.activity() as say:
        try:
            records = stopping.watch(entries, records, lambda live: say(_countdown(live)))
            for twin, told in zip(twins, of_twins, strict=True):
                records += stopping.watch([twin], told, lambda live: say(_countdown(live)))
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say("the hosts go on with the stop; gpurun ps shows how far they are")
            return words.EXIT_INTERRUPTED
        say("looking whether everything is free")
        held = stopping.still_held([*(entry for entry in entries if entry.id not in before), *twins])
    if as_json and (away is None or records):
        on = [entry.host for entry in (*entries, *twins)]
        output.json([{**record, "host": host} for record, host in zip(records, on, strict=True)])
    for number, record in enumerate(records if not as_json else []):
        twin_on = twins[number - len(entries)].host if number >= len(entries) else None
        _tell(record, already=twin_on is None and record["id"] in before, twin_on=twin_on)
    _raise(held, away)
    return 0


def _ask(entries: list[RunEntry], asked: Asked) -> tuple[list[RunRecord], HostUnreachable | None]:
    """Ask the hosts that have these runs now. One that is away is returned: live twins elsewhere need not wait for it."""
    from gpurun.commands import stop as stopping

    try:
        return stopping.ask(entries, asked), None
    except HostUnreachable as error:
        if asked.abandon:  # that is meant for the run where it is, not for a twin on a machine that answers
            raise
        return [], error


def _raise(held: list[str], away: HostUnreachable | None) -> None:
    if away is not None:
        for line in held:
            output.warn(line)
        raise away
    if held:
        raise GpurunError("\n".join(held), "gpurun ps --all-users shows who uses what")


def _countdown(live: list[tuple[RunRecord, float | None]]) -> str:
    parts = []
    for record, left in live:
        if record.get("saving"):
            parts.append(f"{record['id']} writes its checkpoint")
        elif left is None:
            parts.append(f"{record['id']} is ending")
        elif left > 0:
            parts.append(f"{record['id']} saves its work; killed in {output.duration(left)}")
        else:
            parts.append(f"killing {record['id']}")
    return ", ".join(parts)


def _tell(record: RunRecord, *, already: bool, twin_on: str | None = None) -> None:
    colour = describe.COLOURS.get(record["state"], output.DIM)
    had = "had ended already: it " if already else ""
    freed = "" if already or not record.get("gpus") else f"; {describe.gpus(record)} is free"
    name = f"attempt {record['attempt']} of {record['id']} on {twin_on}" if twin_on else record["id"]
    output.say(f"{name} {had}{output.styled(describe.outcome(record), colour)}{freed}")
    if not already and (saved := describe.saved(record)):
        output.say(f"  {saved}")
    if words.is_over(record) and record.get("started") and not already and not twin_on:
        output.next_steps((f"gpurun fetch {record['id']}", "bring back what it wrote"), *describe.go_on(record))
