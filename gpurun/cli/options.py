"""Options and arguments that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from gpurun.cli import complete

Host = Annotated[
    str | None,
    typer.Option("--host", "-H", metavar="HOST", help="Use this host.", autocompletion=complete.hosts),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip confirmation prompts.")]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Its id, its name, or the beginning of one. [the newest run of this project]",
        autocompletion=complete.runs,
        show_default=False,
    ),
]
KnownRun = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Its id, its name, or the beginning of one; also of a removed run. [the newest run of this project]",
        autocompletion=complete.known_runs,
        show_default=False,
    ),
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Ids, names, or the beginnings of them. [the newest run of this project]",
        autocompletion=complete.runs,
        show_default=False,
    ),
]
