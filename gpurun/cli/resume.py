"""`gpurun resume`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output
from gpurun.cli.submit import after_start

EXAMPLES = """\
gpurun resume
gpurun resume train-7f3k -f
gpurun resume train-7f3k --from best -g 2"""


def resume(
    run: options.Run = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="best|last|PATH", help="The checkpoint; a path as the run's workspace has it. [last]"
        ),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", "-g", metavar="N", help="Other than before: a number, or all.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="K[=V]", help="A variable; without =V, yours.")
    ] = None,
    env_file: Annotated[
        str | None, typer.Option("--env-file", metavar="FILE", help="Variables, a line K=V each.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log, and end with the job's exit code.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Let a run that has ended go on: the same code, image and arguments, from its newest whole checkpoint.

    It stays the same run, in the same workspace, as its next attempt. Without a checkpoint it starts from the beginning.
    """
    from gpurun import resume as resuming
    from gpurun import runs

    entry = runs.resolve(run)
    asked = resuming.Asked(checkpoint, gpus, env, env_file)
    wire = runs.wire_to(entry.host)
    with output.activity() as say:
        try:
            say(f"asking {wire.host} for the checkpoint")
            started = resuming.resume(wire, resuming.job_of(entry), asked, follow=follow)
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say(f"interrupted; gpurun status {entry.id} shows whether {wire.host} has begun with it")
            return words.EXIT_INTERRUPTED
        say("")
        _tell(started.record)
        return after_start(wire, started, say, follow=follow, as_json=as_json)


def _tell(record: dict[str, Any]) -> None:
    why = "" if record["resumed"] else ": no whole checkpoint is there"
    output.note(f"{record['id']} goes on as attempt {record['attempt']}, {describe.begins_from(record)}{why}")
