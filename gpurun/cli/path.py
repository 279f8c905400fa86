"""`gpurun path`."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.cli import complete, options, output

EXAMPLES = """\
gpurun path train-7f3k
scp $(gpurun path train-7f3k)/metrics.csv ."""


def path(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="An id, a name, or the beginning.", autocompletion=complete.runs)
    ],
    as_json: options.Json = False,
) -> None:
    """Print where a run's working directory is, as host:/path, for scp, rsync and the like."""
    from gpurun import runs

    entry = runs.resolve(run)
    wire = runs.wire_to(entry.host)
    folder = wire.ask("status", {"run": entry.id})["path"]
    destination = wire.connection.destination
    if as_json:
        output.json({"run": entry.id, "host": entry.host, "ssh": destination, "path": folder})
    else:
        output.out(f"{destination}:{folder}")
