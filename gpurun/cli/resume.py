"""`gpurun resume`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output, training
from gpurun.cli.reporting import drawn
from gpurun.cli.submit import after_start, tell_started
from gpurun.errors import HostError, HostUnreachable
from gpurun.events import Doing, Report

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.resume import Asked
    from gpurun.commands.submit import Started
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun resume
gpurun resume train-7f3k -f
gpurun resume train-7f3k --from best -g 2
gpurun resume train-7f3k --host spare"""


def resume(
    run: options.Run = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="best|last|PATH", help="The checkpoint; PATH is relative to the workspace. [last]"
        ),
    ] = None,
    host: options.Host = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", "-g", metavar="N", help="Number of GPUs, or all. [as before]")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", "-e", metavar="K[=V]", help="Set an environment variable; K alone copies it from your shell."
        ),
    ] = None,
    env_file: Annotated[
        str | None, typer.Option("--env-file", metavar="FILE", help="Read variables from a file with lines K=V.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log; exit with the job's exit code.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> int:
    """Resume a run that has ended, from its newest complete checkpoint, with the same code, image and arguments.

    It stays the same run, in the same workspace, as its next attempt. Without a checkpoint it starts from the beginning.
    With --host, code and checkpoint are copied to another host first; from the fetched files when the old host is gone.
    Variables are read from your shell and files again. Values that were typed at submit (-e K=V) are not stored: type
    them again.
    """
    from gpurun.commands import resume as resuming
    from gpurun.commands import runs

    entry = runs.resolve(run)
    if entry.maybe_on is not None:
        entry = _settled(entry, entry.maybe_on, entry.move, yes=yes)
    asked = resuming.Asked(checkpoint, gpus, env, env_file)
    target = host or entry.host
    if target == entry.host and not entry.ended:  # as it was last seen: before anything else is asked for
        with _naming_another_host(entry):
            runs.look([entry])
        entry = runs.resolve(entry.id)
        runs.refuse_live([entry])
    runs.refuse_twins([entry])
    if entry.state == words.SUCCEEDED and asked == resuming.Asked():
        at = ", ".join(training.reached(entry.known))
        done = f"{entry.id} has succeeded{f' ({at})' if at else ''}: as it was submitted, its training is done."
        question = f"{done} Go on all the same?"
        output.confirm(question, yes=yes, otherwise="add -y, or name a checkpoint: --from best")
    with drawn(f"carrying {entry.id}", yes=yes) as report:
        begin = partial(_begin, asked=asked, report=report, follow=follow)
        try:
            try:
                started = begin(entry, target)
            except HostError as error:
                if error.code != error_codes.MOVING:
                    raise
                report.say("")
                entry = _settled_by_its_host(entry, yes=yes)
                target = host or entry.host
                started = begin(entry, target)
        except KeyboardInterrupt:
            output.after_interrupt()
            output.say(f"interrupted; gpurun ps -a -H {target} shows whether {entry.id} has begun there")
            return words.EXIT_INTERRUPTED
        report.say("")
        _tell(started.record, target, left_on=entry.host if entry.host in runs.resolve(entry.id).left_on else None)
        wire = runs.wire_to(target)
        tell_started(wire, started, report.say, follow=follow, as_json=as_json)
        return after_start(wire, started, report.say, follow=follow, as_json=as_json)


def _begin(entry: RunEntry, target: str, *, asked: Asked, report: Report, follow: bool) -> Started:
    from gpurun.commands import resume as resuming
    from gpurun.commands import runs

    if target != entry.host:
        return _migrate(entry, target, asked, report, follow=follow)
    report(Doing(f"asking {target} for the checkpoint"))
    with _naming_another_host(entry):
        return resuming.resume(runs.wire_to(target), resuming.job_of(entry), asked, follow=follow)


@contextmanager
def _naming_another_host(entry: RunEntry) -> Iterator[None]:
    """Add to the error of a run's host that cannot be reached that the run can go on elsewhere."""
    try:
        yield
    except HostUnreachable as error:
        from gpurun.config import hosts

        other = next((name for name in hosts.read().hosts if name != entry.host), "HOST")
        error.next_step += f"\nor let it go on elsewhere: gpurun resume {entry.id} --host {other}"
        raise


def _settled_by_its_host(entry: RunEntry, *, yes: bool) -> RunEntry:
    """The entry once it is known how a move went that this laptop knows nothing of: the run's host names it."""
    from gpurun.commands import migrate, runs
    from gpurun.config import hosts
    from gpurun.store import run_store

    runs.look([entry])
    entry = runs.resolve(entry.id)
    moving = entry.known.get("moving")
    if not moving:
        return entry
    host, move = str(moving["to"]), str(moving["ask"])
    if host in hosts.read().hosts or any(host in (one.host, *one.left_on) for one in run_store.all_runs()):
        return _settled(entry, host, move, yes=yes)
    # A host's word alone makes this laptop connect to nobody.
    question = f"{entry.id} may have gone on on {host}, which this laptop does not know: it would run twice. Go on?"
    output.confirm(question, yes=yes, otherwise=f"gpurun ps -a -H {host}, if you know that host; else add -y")
    migrate.give_back(entry, move)
    return runs.resolve(entry.id)


def _settled(entry: RunEntry, host: str, move: str | None, *, yes: bool) -> RunEntry:
    """The entry once it is known whether `host`, whose answer to an earlier resume never came, has begun with the run."""
    from gpurun.commands import migrate, runs
    from gpurun.store import run_questions, run_store

    with drawn("") as report:
        report(Doing(f"asking {host}"))
        try:
            if move is not None:
                migrate.settle(entry, host, move, report)
            else:  # noted by an earlier gpurun
                run_questions.list_some(runs.wire_to(host), [entry.id], timeout=30)
        except HostUnreachable as error:
            question = (
                f"{entry.id} may have gone on on {host}, which does not answer ({error.what}): it would run twice."
            )
            output.confirm(f"{question} Go on?", yes=yes, otherwise=f"try again when {host} answers, or add -y")
            if move is not None:
                migrate.give_back(entry, move, maybe_on=host)
    if move is None:
        run_store.note_settled(entry.id, None)
    return runs.resolve(entry.id)


def _migrate(entry: RunEntry, target: str, asked: Asked, report: Report, *, follow: bool) -> Started:
    from gpurun.commands.migrate import migrate
    from gpurun.sync import rsync

    rsync.check_local()
    return migrate(entry, target, asked, report, follow=follow)


def _tell(record: RunRecord, host: str, *, left_on: str | None) -> None:
    why = "" if record["resumed"] else ": no whole checkpoint is there"
    begins = f"{describe.begins_from(record)}{why}"
    output.note(f"{record['id']} goes on as attempt {record['attempt']} on {host}, {begins}")
    if left_on is not None:
        output.note(f"what its earlier attempts wrote stays on {left_on}, until gpurun rm {record['id']}")
