"""`gpurun shell`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import options, output
from gpurun.cli.own_arguments import KEY, CommandWithArguments
from gpurun.cli.reporting import drawn
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.remote.wire import Wire

COMMAND = CommandWithArguments
EXAMPLES = """\
gpurun shell
gpurun shell train-7f3k -- nvidia-smi
gpurun shell -g 1                     a development box: image, code and a GPU"""


def shell(
    ctx: typer.Context,
    run: options.Run = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus", "-g", metavar="N", help="Start a session with N GPUs (0: none) instead of entering a run."
        ),
    ] = None,
    host: options.Host = None,
) -> int:
    """Open a shell inside the container or environment of a run, or run a command there.

    Exits with the exit code of the command; a session that -g starts for a command ends with it, too. A live run is entered as it is. A run that has ended gets a new container
    with its image and its workspace, and no GPU. With -g a new session starts, with the project's image, code and GPUs;
    it ends with its last shell.
    """
    command = ctx.meta.get(KEY) or []
    if gpus is not None:
        if run is not None:
            raise UsageError("-g starts a new session, so it takes no RUN", "gpurun shell -g 1")
        return _session(gpus, host, command)
    if host is not None:
        raise UsageError("-H works only with -g: a RUN has its host already", "gpurun shell -g 1 -H HOST")
    from gpurun.commands import runs

    entry = runs.resolve(run)
    return _enter(runs.wire_to(entry.host), entry.id, command)


def _enter(wire: Wire, run: str, command: list[str]) -> int:
    from gpurun import process

    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    # The first start of an image can take its time.
    answer = wire.ask("shell", {"run": run, "command": command, "tty": terminal}, timeout=60)
    if answer.get("ended"):
        output.note(
            f"{run} has ended: this is its environment and its files, without its GPUs (gpurun shell -g 1 has one)"
        )
    if not command:
        output.note(f"in {run} on {wire.host}; exit or Ctrl-D leaves it")
    line = shlex.join(answer["argv"])
    code = wire.connection.attended(line) if terminal else process.attended(wire.connection.argv(line))
    if not command:
        output.note(f"left {run}; its files are in {wire.host}:{answer['path']}")
        output.next_steps((f"gpurun fetch {run}", "bring what was written there"))
    return code


def _session(gpus: str, host: str | None, command: list[str]) -> int:
    """Submit a session, wait for it, enter it."""
    from gpurun.cli.tunnel_shown import Starting, tell_planned
    from gpurun.config.load import load
    from gpurun.remote.wire import connect
    from gpurun.tunnel import services

    loaded = load({"gpus": gpus, "host": host}, None, need_script=False)
    assert loaded.host is not None
    wire = connect(loaded.host)
    wanted = services.Service(words.SHELL, loaded.project.name)
    with drawn(f"sending to {wire.host}") as report:
        report.on[services.Planned] = lambda event: tell_planned(event, wire.host)
        record = services.start(wire, wanted, loaded, report)
        try:
            services.wait_until_running(wire, record, Starting(wire.host, report.say))
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say(f"{record['id']} goes on waiting on {wire.host}")
            output.next_steps((f"gpurun shell {record['id']}", "enter it"), (f"gpurun stop {record['id']}", "end it"))
            return words.EXIT_INTERRUPTED
    return _enter(wire, record["id"], command)
