"""`gpurun host ls`, `use` and `rm`: the list of the hosts that were added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.cli import options, output
from gpurun.cli.host.names import Name
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpurun.hosts.survey import Seen


def use(name: Name) -> None:
    """Set the default host."""
    from gpurun.config import hosts
    from gpurun.hosts.known import check_known

    check_known(name)
    hosts.use(name)
    output.say(f"{name} is the default host now")


def ls(as_json: options.Json = False) -> None:
    """List the hosts: GPUs, free disk, queue. Each has 2 seconds to answer."""
    from gpurun.config import hosts
    from gpurun.hosts.survey import survey

    known = hosts.read()
    seen = survey(list(known.hosts.values()))
    if as_json:
        output.json([_seen_as_document(each, known.default) for each in seen])
        return
    if not seen:
        output.say("no host was added yet; any alias of your SSH configuration works with -H")
        output.next_step("gpurun host add NAME user@address")
        return
    rows = [_row(each, known.default) for each in seen]
    output.table(["HOST", "ADDRESS", "GPUS", "DISK FREE", "RUNS", "QUEUE"], rows, shrink=(2, 1))


def _row(seen: Seen, default: str | None) -> list[str]:
    address = seen.host.address
    where = "ssh alias"
    if address is not None:
        where = (
            (f"{address.user}@" if address.user else "") + address.host + (f":{address.port}" if address.port else "")
        )
    name = seen.host.name + (" *" if seen.host.name == default else "")
    if seen.answer is None:
        return [name, where, output.styled("no answer", output.YELLOW), "", "", ""]
    live = sum(record["live"] for record in seen.answer["runs"])
    return [
        name,
        where,
        seen.gpus,
        output.size(seen.answer["disk"]["free"]),
        str(live),
        str(len(seen.answer["queue"])),
    ]


def _seen_as_document(seen: Seen, default: str | None) -> dict[str, object]:
    answer = seen.answer
    told: Mapping[str, object] = answer or {}
    return {
        "name": seen.host.name,
        "default": seen.host.name == default,
        "address": seen.host.address,
        "reachable": seen.answer is not None,
        "why": seen.failure.what if seen.failure else None,
        **{key: told.get(key) for key in ("host_id", "hostname", "gpus", "disk", "queue")},
        "live": [record["id"] for record in (answer["runs"] if answer else ()) if record["live"]],
    }


def rm(
    name: Name,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Also remove the key that `host add` installed there.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Forget a host. Its runs continue and stay there; `host leave` cleans up."""
    from gpurun.config import hosts
    from gpurun.hosts import leave
    from gpurun.hosts.address import add_command
    from gpurun.store import run_store

    if name not in hosts.read().hosts:
        raise UsageError(f"{name} was not added", "gpurun host ls")
    again = add_command(name, hosts.read().hosts[name].address)
    revoked = leave.revoke(name) if revoke else False
    hosts.remove(name)
    if as_json:
        output.json({"name": name, "revoked": revoked})
        return
    output.say(f"{name} is forgotten" + ("; its key is taken away there" if revoked else ""))
    if there := [entry for entry in run_store.all_runs() if entry.host == name]:
        live = sum(not entry.ended for entry in there)
        output.note(
            f"{output.plural(len(there), 'run')} of yours ({live} live) stay there; add it again to reach them: {again}"
        )
    if revoke and not revoked:
        output.say("no key that `host add` put there was found")
