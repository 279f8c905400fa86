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
        Path, typer.Argument(metavar="[DIR]", help="Where; made when it is missing.", show_default=False)
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
    from gpurun.project_template import write_project

    folder = Path(os.path.abspath(directory))  # noqa: PTH100 - the name as it was typed, links and all
    written = write_project(folder, folder.name, template)
    if not written:
        output.say(f"everything is there already in {folder}")
        return
    for path in written:
        output.out(os.path.relpath(path))
    output.say(f"\n{output.plural(len(written), 'file')} in {folder}. Next:")
    enter = [] if folder == Path.cwd() else [(f"cd {shlex.quote(str(directory))}", "")]
    output.next_steps(*enter, ("gpurun submit train.py -f", "-H HOST names the host; --gpus 0: without a GPU"))
