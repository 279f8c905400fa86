"""How a host is named on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.cli import complete

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the host.", autocompletion=complete.hosts)]
MaybeName = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="Name of the host. [the default host]", autocompletion=complete.hosts, show_default=False
    ),
]
