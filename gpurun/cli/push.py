"""`gpurun push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpurun.cli import options, output
from gpurun.cli.reporting import drawn

EXAMPLES = """\
gpurun push data/imagenet box:imagenet
gpurun push ~/corpora/wiki box:wiki --json"""


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder whose content is sent.")],
    target: Annotated[str, typer.Argument(metavar="HOST:NAME", help="The host, and a name for the data there.")],
    as_json: options.Json = False,
) -> None:
    """Send data to a host, where all runs can read it.

    Resumes after a lost connection, deletes nothing there, and sends only what is new or changed. A job mounts it with
    `gpurun submit --data NAME`, or data = ["NAME"] in its job file, and reads it in $GPURUN_DATA.
    """
    from gpurun.cli.fetch import printable
    from gpurun.commands import runs
    from gpurun.commands.push import parse_target, survey
    from gpurun.commands.push import push as send

    host, name = parse_target(target)
    tree = survey(folder)
    for link in tree.outward[:5]:
        output.warn(f"{printable(link)} leads out of {folder} and is not sent")
    if len(tree.outward) > 5:
        output.warn(f"{len(tree.outward) - 5} more links lead out and are not sent")
    try:
        with drawn(f"pushing {name}") as report:
            pushed = send(runs.wire_to(host), host, folder, name, tree, report=report)
    except KeyboardInterrupt:
        output.say("\nwhat has come is kept; the same command goes on from there")
        raise
    if as_json:
        output.json({"host": host, "name": name, "path": pushed.path, "files": tree.files, "bytes": tree.bytes})
        return
    news = "" if pushed.anything_new else "nothing new: "
    output.say(f"{news}{output.plural(tree.files, 'file')}, {output.size(tree.bytes)}, on {host} as {name}")
    output.next_step(f"gpurun submit SCRIPT -H {host} --data {name}", "the script reads it in $GPURUN_DATA")
    output.out(f"{host}:{pushed.path}")
