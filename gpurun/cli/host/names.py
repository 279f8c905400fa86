"""How a host is named on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.cli import complete

Name = Annotated[str, typer.Argument(metavar="NAME", help="What you call the host.", autocompletion=complete.hosts)]
MaybeName = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="The default host unless given.", autocompletion=complete.hosts, show_default=False
    ),
]
