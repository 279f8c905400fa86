"""`gpurun shell`."""

from __future__ import annotations

import shlex
import sys

import typer

from gpurun.cli import options, output
from gpurun.cli.own_arguments import KEY, CommandWithArguments

COMMAND = CommandWithArguments
EXAMPLES = """\
gpurun shell
gpurun shell train-7f3k -- nvidia-smi"""


def shell(ctx: typer.Context, run: options.Run = None) -> int:
    """Open a shell inside a run's container or environment, or run a command there; ends with its exit code.

    A live run is entered as it is. One that has ended gets a fresh container with its image and its workspace.
    """
    from gpurun import runs
    from gpurun.ssh import process

    command = ctx.meta.get(KEY) or []
    entry = runs.resolve(run)
    wire = runs.wire_to(entry.host)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    # The first start of an image can take its time.
    request = {"run": entry.id, "command": command, "tty": terminal}
    answer = wire.ask("shell", request, timeout=60)
    if not command:
        output.note(f"in {entry.id} on {entry.host}; exit or Ctrl-D leaves it")
    line = shlex.join(answer["argv"])
    if terminal:
        return wire.connection.attended(line)
    return process.attended(wire.connection.argv(line))
