"""`gpurun init`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from gpurun.cli import complete, output

EXAMPLES = """\
gpurun init digits
gpurun init vision --template mnist
cd digits && gpurun submit train.py -f"""


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The folder; created when it is missing. [.]", show_default=False)
    ] = Path(),
    template: Annotated[
        str,
        typer.Option(
            "--template",
            "-t",
            metavar="digits|mnist|bare",
            help="A small real task, the classic one, or the least that trains.",
            autocompletion=complete.templates,
        ),
    ] = "digits",
) -> None:
    """Write a Lightning project (models/, data/, train.py) that can be submitted as it is. No file is overwritten."""
    from gpurun.config import hosts
    from gpurun.job.templates import TEMPLATES, write_project

    folder = Path(os.path.abspath(directory))  # noqa: PTH100 - the name as it was typed, links and all
    written = write_project(folder, folder.name, template)
    if not written:
        output.say(f"everything is there already in {folder}")
        return
    for path in written:
        output.out(os.path.relpath(path))
    kept = [file for file in TEMPLATES[template] if folder / file not in written]
    if kept:
        output.note(f"left as they are: {', '.join(kept)}")
    output.say(f"\n{output.plural(len(written), 'file')} in {folder}. Next:")
    enter = [] if folder == Path.cwd() else [(f"cd {shlex.quote(str(directory))}", "")]
    known = hosts.read()
    named = known.default is not None or len(known.hosts) == 1
    where, why = ("", "") if named else (" -H HOST", "HOST: one of `gpurun host ls`, or any SSH alias; ")
    output.next_steps(*enter, (f"gpurun submit train.py{where} -f", f"{why}add -g 0 where it has no GPU"))
