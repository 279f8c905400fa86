"""`gpurun data`: the lasting data folders of a host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import complete, options, output
from gpurun.cli.command import VerbCommand, noun
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.commands.data import Folder
    from gpurun.config.hosts import HostProfile
    from gpurun.remote.wire import Wire

app = noun("data", "List and remove the data folders of a host. `gpurun push` fills them.")

LS_EXAMPLES = """\
gpurun data ls
gpurun data ls -H box --json"""
RM_EXAMPLES = """\
gpurun data rm imagenet
gpurun data rm box:imagenet -y"""


def ls(host: options.Host = None, as_json: options.Json = False) -> None:
    """List the data of a host: size, files, last push, live runs that use it.

    A project's own folder, where $GPURUN_DATA points, is listed under the project's name.
    """
    from gpurun.commands import data

    chosen, wire = _reach(host)
    with output.activity(f"asking {chosen.name}"):
        folders = data.ls(wire, chosen)
    if as_json:
        output.json({"host": chosen.name, "data": [_as_document(folder) for folder in folders]})
        return
    if not folders:
        output.say(f"{chosen.name} has no data")
        output.next_step(f"gpurun push DIR {chosen.name}:NAME")
        return
    output.table(["NAME", "SIZE", "FILES", "PUSHED", "USED BY"], [_row(folder) for folder in folders], shrink=(4, 0))


def _row(folder: Folder) -> list[str]:
    users = ", ".join(folder.used_by) or "-"
    if folder.bytes is None:
        return [folder.name, "-", "-", "-", folder.path]
    more = "" if folder.counted else "over "
    pushed = f"{output.ago(folder.pushed)} ago" if folder.pushed is not None else "-"
    if folder.incomplete:
        pushed = output.styled("incomplete", output.YELLOW, stream=sys.stdout)
    return [folder.name, more + output.size(folder.bytes), f"{more}{folder.files:,}", pushed, users]


def _as_document(folder: Folder) -> dict[str, object]:
    import dataclasses

    return {**dataclasses.asdict(folder), "incomplete": folder.incomplete}


def rm(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[HOST:]NAME",
            help="A name from `gpurun data ls`.",
            autocompletion=complete.data_of_a_host,
            show_default=False,
        ),
    ],
    host: options.Host = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> int:
    """Remove data from a host. Asks first; data that a live run uses is refused.

    Exit code 125: not all of it could be removed.
    """
    from gpurun.commands import data

    before, _, plain = name.rpartition(":")
    if before and host and before != host:
        raise UsageError(f"two hosts are named: {before} and {host}", f"gpurun data rm {name}")
    chosen, wire = _reach(before or host)
    with output.activity(f"asking {chosen.name}"):
        folder = data.find(data.ls(wire, chosen), plain, chosen.name)
    assert folder.bytes is not None
    assert folder.files is not None
    more = "" if folder.counted else "over "
    what = f"{more}{output.size(folder.bytes)} in {more}{output.plural(folder.files, 'file')}"
    output.confirm(
        f"Remove {plain} from {chosen.name} for good: {what}?",
        yes=yes,
        otherwise=f"gpurun data rm {plain} -H {chosen.name} -y",
    )
    with output.activity(f"removing {plain}"):
        removed = data.rm(wire, chosen, folder)
    if as_json:
        output.json({"host": chosen.name, "name": plain, "freed": removed.freed, "left": removed.left})
    else:
        what = f"not all of {plain}" if removed.left else plain
        output.say(f"removed {what} from {chosen.name}; {output.size(removed.freed)} are free again")
        for path in removed.left:
            output.warn(f"the host could not remove everything in {path}; another user's process wrote there")
    return words.EXIT_FAILED if removed.left else 0


def _reach(name: str | None) -> tuple[HostProfile, Wire]:
    from gpurun.config import hosts
    from gpurun.config.project import find_project
    from gpurun.remote.wire import connect

    told = None if name else find_project().settings().get("host")
    host = hosts.choose(name, project=told if isinstance(told, str) else None)
    return host, connect(host)


app.command("ls", cls=VerbCommand, epilog=LS_EXAMPLES)(ls)
app.command("rm", cls=VerbCommand, epilog=RM_EXAMPLES)(rm)
