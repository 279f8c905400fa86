"""`gpurun help`: a command's help, or a topic that is no command's."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from gpurun.cli import output
from gpurun.errors import UsageError

EXAMPLES = """\
gpurun help submit
gpurun help host add
gpurun help exit-codes"""

TOPICS = {
    "exit-codes": (
        "What the exit code of gpurun means",
        """\
The exit code of gpurun:
  N    the job's own exit code, with submit -f, wait and status --exit-code
  1    no such checkpoint, file or run: fetch --best, --last, --only, which;
       or you answered no
  2    wrong use or configuration
  3    host check --gpu: the host has no GPU
  124  wait: the timeout was over first
  125  gpurun failed; or the run ended without an exit code of its own; or
       host check found something to fix
  130  interrupted with Ctrl-C; what runs on a host goes on
  255  the host cannot be reached, or refused the login""",
    ),
    "runs": (
        "How a command finds its run",
        """\
RUN is the id of a run (train-7f3k), its name (train), or the beginning of one
of them (tr). Without RUN, the newest run of this project is used. The project
is found from the working directory: the folder with gpurun.toml,
pyproject.toml or .git.

The host of a new run is -H HOST, else $GPURUN_HOST, the job file's host, the
project's host, the default host (gpurun host use), or the only host.""",
    ),
    "options": (
        "Options that every command has",
        """\
  -h, --help            Show the help of a command.
  --debug               Show every ssh and rsync command, and the traceback of
                        an error.
  --version             Print the version.
  --install-completion  Install completion for the current shell.
  --show-completion     Print the completion script.

Most commands have --json, which prints one JSON document on stdout.""",
    ),
}


def names(incomplete: str) -> list[tuple[str, str]]:
    """Commands and topics, for completion."""
    from gpurun.cli.app import VERBS

    known = [
        *((verb.name, verb.help) for verb in VERBS.values()),
        *((name, line) for name, (line, _) in TOPICS.items()),
    ]
    return [(name, line) for name, line in known if name.startswith(incomplete)]


def help(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND|TOPIC]",
            help="A command, or a topic of the list below.",
            autocompletion=names,
            show_default=False,
        ),
    ] = None,
) -> int:
    """Show the help of a command, as `gpurun COMMAND --help` does, or explain a topic.

    Topics: exit-codes, runs, options.
    """
    from gpurun.cli.app import VERBS, main

    if not words:
        return main(["--help"])
    if words[0] in VERBS:
        return main([*words, "--help"])
    if words[0] in TOPICS and len(words) == 1:
        output.out(TOPICS[words[0]][1])
        return 0
    typed = " ".join(words)
    near = difflib.get_close_matches(words[0], [*VERBS, *TOPICS], n=1, cutoff=0.6)
    raise UsageError(f"there is no help on {typed!r}", f"gpurun help {near[0]}" if near else "gpurun help")
