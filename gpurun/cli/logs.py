"""`gpurun logs`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words
from gpurun.cli import options, output, removed_run
from gpurun.cli.screen import Screen, say_detached, say_end
from gpurun.cli.terminal import harmless_output
from gpurun.config.problems import read_option
from gpurun.config.readers import whole_number
from gpurun.config.units import span
from gpurun.errors import HostError, HostUnreachable, UsageError

if TYPE_CHECKING:
    from gpurun.agent.schema.requests import LogsRequest
    from gpurun.agent.schema.run import RunRecord
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun logs -f
gpurun logs train-7f3k --tail 50
gpurun logs --since 5m -t
gpurun logs --build                 what was printed while the image was made"""


def logs(
    run: options.KnownRun = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the run has ended.")] = False,
    tail: Annotated[str | None, typer.Option("--tail", "-n", metavar="N", help="Print only the last N lines.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="SPAN", help="Print only what came in this time, e.g. 5m.")
    ] = None,
    attempt: Annotated[
        str | None,
        typer.Option("--attempt", metavar="N", help="Print the log of an earlier attempt. [the newest]"),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Start each line with the time (UTC) at which it was printed.")
    ] = False,
    build: Annotated[
        bool, typer.Option("--build", help="Print the output of the image build and of pip instead.")
    ] = False,
) -> int:
    """Print what a run wrote, byte for byte, on stdout.

    While a run is prepared, -f shows one line of progress on stderr; --build prints all of it. Without -f, what was
    printed then is also shown for a run that failed before it started. Of a run that was removed from its host: the log
    that was fetched.
    """
    if build and (since is not None or timestamps):
        raise UsageError("--since and --timestamps are for the log, not for --build", "gpurun logs --build --tail 50")
    from gpurun.commands import runs
    from gpurun.commands.follow import show_log

    lines = read_option("--tail", tail, whole_number(0), "gpurun logs --tail 50")
    number = read_option("--attempt", attempt, whole_number(1), "gpurun logs --attempt 1")
    seconds = read_option("--since", since, span, "--since 5m")
    entry = runs.resolve(run, removed=True)
    request: LogsRequest = {
        "run": entry.id,
        "tail": lines,
        "since": seconds,
        "times": timestamps,
        "follow": follow,
        "attempt": number,
        "build": build,
    }
    if entry.removed is not None:
        removed_run.show_log(entry, number, lines, timed=timestamps or since is not None, build=build)
        return 0
    wire = runs.wire_to(entry.host)
    with removed_run.naming_what_came(entry), output.activity() as say:
        screen = Screen(entry.host, say) if follow and not build else _Pages(entry.host, say)
        until = _is_prepared if build else _never
        record: RunRecord | None
        try:
            try:
                record = show_log(wire, request, screen, until=until)
            except HostError as error:
                if error.code != error_codes.ATTEMPT_ELSEWHERE or number is None:
                    gone = removed_run.instead(entry, error)
                    say("")
                    removed_run.show_log(gone, number, lines, timed=timestamps or since is not None, build=build)
                    return 0
                record = _of_a_former_host(entry, request, number, screen, error)
            except HostUnreachable as error:
                if number is None or not entry.left_on:
                    raise
                record = _of_a_former_host(entry, request, number, screen, error)
        except KeyboardInterrupt:
            output.after_interrupt()
            if follow:
                say_detached(entry.id, entry.host)
            return words.EXIT_INTERRUPTED
        screen.fresh_line()
        if record is not None:
            _say_what_came(entry, record, screen, follow=follow, build=build)
    return 0


def _say_what_came(entry: RunEntry, record: RunRecord, screen: Screen, *, follow: bool, build: bool) -> None:
    if build and not screen.printed:
        output.note(f"nothing was printed while {entry.id} was prepared")
    elif follow and not build:
        say_end(record)
    elif not screen.printed:
        output.note(f"{entry.id} has printed nothing yet")
    elif record["state"] == words.FAILED and (message := record.get("message")) and sys.stdout.isatty():
        output.warn(message)


def _is_prepared(record: RunRecord) -> bool:
    return record["state"] == words.RUNNING or words.is_over(record)


def _never(record: RunRecord) -> bool:
    return False


def _of_a_former_host(
    entry: RunEntry, request: LogsRequest, attempt: int, screen: Screen, error: HostError | HostUnreachable
) -> RunRecord | None:
    """Show an attempt's log from the host that the run went on from, or as it was fetched (None then).

    Raises UsageError where it is nowhere, and `error` where no host of the run answers either.
    """
    from gpurun.commands import runs
    from gpurun.commands.follow import show_log

    silent = []
    for host in entry.left_on:
        try:
            return show_log(runs.wire_to(host), request, screen)
        except HostError:
            continue
        except HostUnreachable as away:
            silent.append(host)
            output.warn(f"{host}, which {entry.id} went on from, does not answer: {away.what}")
    if removed_run.show_log_of_attempt(entry, attempt, request["tail"], build=request["build"]):
        return None
    if silent and isinstance(error, HostError):
        again = f"gpurun logs {entry.id} --attempt {attempt}, when {' or '.join(silent)} answers again"
        raise UsageError(f"{error.what}, and its log was not fetched", again)
    raise error


class _Pages(Screen):
    """Without -f everything is the result, what preparing said too."""

    def prepare(self, data: bytes) -> None:
        self.log(harmless_output(data) if sys.stdout.isatty() else data)

    def state(self, record: RunRecord) -> None:
        return
