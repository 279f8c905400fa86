"""`gpurun path`."""

from __future__ import annotations

from gpurun.cli import options, output

EXAMPLES = """\
gpurun path train-7f3k
scp $(gpurun path train-7f3k)/metrics.csv ."""


def path(
    run: options.Run = None,
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
