"""`gpurun host leave`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.cli import options, output
from gpurun.cli.host.names import Name

if TYPE_CHECKING:
    from gpurun.hosts.leave import Left, Plan
    from gpurun.wire import Wire

SHOWN = 10  # paths that are named one by one


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
    """Give a box back: fetch what is not here, then remove runs, caches, secrets, keys and the agent there.

    Runs of other people who share the account stay there, and what those need, unless --also names them.
    """
    from gpurun.config import hosts
    from gpurun.hosts import leave as leaving
    from gpurun.wire import connect

    wire = connect(hosts.read().get(name))
    with output.activity(f"asking {name}") as say:
        plan = _without_live(wire, stop=stop, say=say, also=also or [])
        beside = leaving.look_beside(wire)
    if plan.stays:
        count = output.plural(len(plan.stays), "run")
        output.warn(f"{count} of {plan.owners} stay on {name}, and what those need; --also OWNER removes them")
    if plan.unfetched and fetch:
        _bring_home(wire, plan.unfetched, yes=yes)
        with output.activity(f"asking {name}"):
            plan = leaving.look(wire, also=also or [])  # to fetch may take long
        leaving.refuse_live(wire, plan)
        leaving.refuse_unfetched(wire, plan.unfetched)
    elif plan.unfetched:
        question = f"{', '.join(plan.unfetched)} was not, or not all, fetched. Give it up?"
        output.confirm(question, yes=yes, otherwise="leave out --no-fetch, or add -y")
    data = None if keep_data else {name: folder.stamp for name, folder in beside.data.items()}
    if data and not plan.stays:
        question = f"The data folders {', '.join(data)} go, too. Remove them?"
        output.confirm(question, yes=yes, otherwise="--keep-data leaves them there, -y removes them")
    with output.activity(f"removing everything of gpurun's from {name}"):
        left = leaving.wipe(wire, plan, data=data)
    if as_json:
        output.json(left)
    else:
        _tell_left(name, left, plan)


def _without_live(wire: Wire, *, stop: bool, say: Callable[[str], None], also: Sequence[str]) -> Plan:
    from gpurun.hosts import leave as leaving

    plan = leaving.look(wire, also=also)
    if plan.live and stop:
        leaving.stop(wire, plan.live, say)
        plan = leaving.look(wire, also=also)
    leaving.refuse_live(wire, plan)
    return plan


def _bring_home(wire: Wire, runs: tuple[str, ...], *, yes: bool) -> None:
    from gpurun import index
    from gpurun.cli.fetch import bring, bring_left
    from gpurun.hosts import leave as leaving

    entries = [entry for entry in map(index.find, runs) if entry is not None]
    found = [bring_left(entry, wire.host, yes=yes) for entry in entries if wire.host in entry.left_on]
    found += bring([entry for entry in entries if wire.host not in entry.left_on], yes=yes)
    whole = {fetched.run for fetched in found if fetched is not None and fetched.whole}
    leaving.refuse_unfetched(wire, [run for run in runs if run not in whole])


def _tell_left(name: str, left: Left, plan: Plan) -> None:
    removed = output.plural(len(left.removed), "run")
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
        shown = ", ".join(f"{stays.path} ({stays.why})" for stays in left.remains[:SHOWN])
        output.warn(f"these could not be removed: {shown}")
        return
    output.say(f"{name} can be given back")
