"""`gpurun host leave`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.cli import options, output
from gpurun.cli.host.names import Name
from gpurun.errors import GpurunError
from gpurun.events import Event, Moved

if TYPE_CHECKING:
    from pathlib import Path

    from gpurun.fetch import Fetched
    from gpurun.hosts.leave import Beside, Left, Plan
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

SHOWN = 6  # names that are listed before "and more"
COLUMN = 12  # where the text of the summary begins


def leave(
    name: Name,
    stop: Annotated[bool, typer.Option("--stop", help="End the runs that are live there, with their grace.")] = False,
    fetch: Annotated[bool, typer.Option("--fetch/--no-fetch", help="Bring home what is not here.")] = True,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Leave the data folders (gpurun push) there.")] = False,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="OWNER", help="Remove the runs of this person, too. May repeat."),
    ] = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Give a box back: fetch what is not here, then remove runs, data, caches, secrets, keys and the agent there.

    Shows first what is there and what becomes of it, and asks once. Open services (TensorBoard, Jupyter, shells) are
    stopped. Runs of other people who share the account stay there, and what those need, unless --also names them.
    Files that gpurun did not make stay, and are named.
    """
    from gpurun.config import hosts
    from gpurun.hosts import leave as leaving
    from gpurun.remote.wire import connect

    wire = connect(hosts.read().get(name))
    with output.activity(f"asking {name}"):
        agreed = plan = leaving.look(wire, also=also or [])
        beside = leaving.look_beside(wire)
    if not stop:
        leaving.refuse_live(wire, plan.live)
    _show(name, plan, beside, fetch=fetch, keep_data=keep_data)
    options_given = [("--stop", stop), ("--no-fetch", not fetch), ("--keep-data", keep_data)]
    given = [option for option, on in options_given if on] + [f"--also {owner}" for owner in also or []]
    output.confirm(f"Leave {name}?", yes=yes, otherwise=" ".join(["gpurun host leave", name, *given, "-y"]))
    leaving.close_tunnels(name)
    if ends := [*plan.live, *plan.services]:
        with output.activity(f"stopping {', '.join(ends)}") as say:
            leaving.stop(wire, ends, say)
            plan = leaving.look(wire, also=also or [])
    if fetch and plan.unfetched:
        _bring_home(wire, plan.unfetched)
        with output.activity(f"asking {name}"):
            plan = leaving.look(wire, also=also or [])  # to fetch may take long
    leaving.refuse_live(wire, [*plan.live, *plan.services])
    leaving.refuse_more(wire, plan, agreed)
    leaving.refuse_unfetched(wire, plan.unfetched if fetch else ())
    keep_data = keep_data or bool(agreed.stays)
    with output.activity(f"removing everything of gpurun's from {name}"):
        left = leaving.wipe(
            wire, plan, data=None if keep_data else {name: folder.stamp for name, folder in beside.data.items()}
        )
    if as_json:
        output.json(left)
    else:
        _tell_left(name, left, plan, data=any(folder not in left.data for folder in beside.data))


# --- before


def _show(name: str, plan: Plan, beside: Beside, *, fetch: bool, keep_data: bool) -> None:
    """What is there, and what becomes of it."""
    output.say(f"On {name}, and what becomes of it:")
    for label, text in _lines(plan, beside, fetch=fetch, keep_data=keep_data):
        output.say_as_it_is(f"  {label:<{COLUMN - 2}}{output.folded(text, COLUMN, sys.stderr)}")


def _lines(plan: Plan, beside: Beside, *, fetch: bool, keep_data: bool) -> Iterator[tuple[str, str]]:
    yield "runs", _of_runs(plan, fetch=fetch)
    if plan.live:
        becomes = "stopped, then fetched" if fetch else "stopped, and given up"
        yield "live", f"{_listed(plan.live)}: {becomes}"
    if plan.services:
        becomes = "; what was written in them is fetched" if fetch else ", and what was written in them given up"
        yield "services", f"{_listed(plan.services)}: stopped{becomes}"
    if beside.data:
        folders = [
            f"{name} ({output.size(data.bytes)}, {output.plural(data.files, 'file')})"
            for name, data in beside.data.items()
        ]
        becomes = "stays there" if keep_data or plan.stays else "removed; --keep-data leaves it there"
        yield "data", f"{_listed(folders)}: {becomes}"
    if plan.stays:
        count = output.plural(len(plan.stays), "run")
        yield "others", f"{count} of {plan.owners} stay, and what those need; --also OWNER removes them"
    if beside.foreign:
        yield "not ours", f"{_listed(beside.foreign)}: gpurun did not make this, so it stays"
    for stays in beside.kept:
        yield "stays", f"{stays.path}: {stays.why}"


def _of_runs(plan: Plan, *, fetch: bool) -> str:
    if not plan.all:
        return "none"
    all_ended = not (plan.live or plan.services)
    count = output.plural(len(plan.all), "run")
    size = ("at least " if plan.uncounted else "") + output.size(sum(plan.unfetched.values()))
    if plan.unfetched and not fetch:
        return f"{count}: removed; {_listed(plan.unfetched)} ({size}) given up, not or not all fetched"
    if plan.unfetched:
        least = "" if all_ended else "at least "
        here = f", less what is here of {plan.here_in_part}" if plan.here_in_part else ""
        return f"{count}: {least}{len(plan.unfetched)} to be fetched ({size}{here}), then all are removed"
    return f"{count}: removed" + (", all that they wrote is here" if all_ended else "")


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


# --- meanwhile


def _bring_home(wire: Wire, sizes: Mapping[str, int]) -> None:
    """Fetch these runs. Raises GpurunError unless all of them have come whole."""
    from gpurun.fetch.parallel import fetch_runs
    from gpurun.hosts import leave as leaving
    from gpurun.store import run_store

    entries = {run: entry for run in sizes if (entry := run_store.find(run)) is not None}
    whole: set[str] = set()
    finished = 0
    with output.steps("fetching") as bar:

        def ended(run: str, result: Fetched | GpurunError) -> None:
            nonlocal finished
            finished += 1
            _tell_fetched(replace(entries[run], host=wire.host), result, f" ({finished} of {len(sizes)})")
            if not isinstance(result, GpurunError) and result.whole:
                whole.add(run)

        def report(event: Event) -> None:
            if isinstance(event, Moved):
                text = f"{finished} of {len(sizes)}, {output.size(event.done)} of {output.size(event.total)}"
                bar(event.done / event.total if event.total else finished / len(sizes), text, "")

        folders = {run: _folder(entry, wire.host) for run, entry in entries.items()}
        fetch_runs(wire, folders, sizes, ended=ended, report=report)
    # The project of a run may be gone from this laptop: its files come to the folder where `leave` was typed.
    output.say("fetched into " + ", ".join(sorted({str(folder.parent) for folder in folders.values()})))
    leaving.refuse_unfetched(wire, [run for run in sizes if run not in whole])


def _folder(entry: RunEntry, host: str) -> Path:
    from gpurun.cli import one_checkpoint
    from gpurun.cli.fetch import folder_for

    folder = folder_for(entry)
    return one_checkpoint.left_on(folder, host) if host in entry.left_on else folder


def _tell_fetched(entry: RunEntry, result: Fetched | GpurunError, count: str) -> None:
    from gpurun.cli.fetch import tell

    if isinstance(result, GpurunError):
        output.warn(f"{entry.id} was not fetched: {result.what}{count}")
        return
    tell(entry, result, count)
    if entry.host in entry.left_on:
        output.note(f"what it had left on {entry.host} is in {result.to}")


# --- afterwards


def _tell_left(name: str, left: Left, plan: Plan, *, data: bool) -> None:
    removed = output.plural(len(left.removed), "run") + (", data" if data else "")
    more = "" if left.shared else ", caches, secrets and the agent"
    output.say(f"removed {removed}{more} from {name}")
    if left.revoked:
        output.say("the key that `host add` put there is taken away")
    if left.data and not left.shared:
        output.say(f"kept there: data/{', data/'.join(left.data)}")
    if plan.stays:
        output.say(f"the runs of {plan.owners} stay there, and with them the agent, the caches and the data")
    elif left.shared:
        output.say("another machine shares that home, so its runs, the agent and the caches stay")
    for stays in left.kept[:SHOWN]:
        output.note(f"left alone: {stays.path} ({stays.why})")
    if len(left.kept) > SHOWN:
        output.note(f"and {len(left.kept) - SHOWN:,} more")
    if left.remains:
        output.warn(f"could not be removed: {_listed([f'{one.path} ({one.why})' for one in left.remains])}")
        return
    output.say(f"{name} can be given back")
