"""Options and arguments that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.cli import complete

Host = Annotated[
    str | None,
    typer.Option("--host", "-H", metavar="HOST", help="Which host.", autocompletion=complete.hosts),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to what would be asked.")]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="An id, a name, or the beginning of one; the newest run of this project unless given.",
        autocompletion=complete.runs,
        show_default=False,
    ),
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Ids, names, or the beginnings of them; the newest run of this project unless given.",
        autocompletion=complete.runs,
        show_default=False,
    ),
]
