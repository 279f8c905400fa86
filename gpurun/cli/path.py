"""`gpurun path`."""

from __future__ import annotations

import shlex

from gpurun.cli import options, output, removed_run

EXAMPLES = """\
gpurun path train-7f3k
scp $(gpurun path train-7f3k)/metrics.csv ."""


def path(
    run: options.KnownRun = None,
    as_json: options.Json = False,
) -> None:
    """Print the working directory of a run as host:/path, for scp and rsync.

    Of a run that was removed from its host: the folder here that it was fetched into.
    """
    from gpurun.commands import runs

    entry = runs.resolve(run, removed=True)
    if entry.removed is not None:
        removed_run.show_folder(entry, in_json=as_json)
        return
    wire = runs.wire_to(entry.host)
    with output.activity(f"asking {entry.host}"):
        folder = wire.ask("status", {"run": entry.id})["path"]
    address = wire.connection.address
    destination = (f"{address.user}@" if address.user else "") + wire.connection.destination
    if as_json:
        told = {"ssh": destination, "port": address.port, "identity": address.identity_file, "path": folder}
        output.json({"run": entry.id, "host": entry.host, **told})
        return
    output.out(f"{destination}:{folder}")
    ways = [
        *(["-P", str(address.port)] if address.port else []),
        *(["-i", address.identity_file] if address.identity_file else []),
    ]
    if ways:
        output.note(f"it wants {shlex.join(ways)}: scp {shlex.join(ways)} -r $(gpurun path {entry.id})/... .")
