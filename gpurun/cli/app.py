"""`gpurun`: which verbs there are, and the one place where an error becomes a message and an exit code.

A verb's module is imported when that verb is used, so that `gpurun --help` and a completion stay quick.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from gpurun.agent import vocabulary as words
from gpurun.cli import output
from gpurun.cli.command import as_command, print_sections, quick
from gpurun.errors import NO_NAME, GpurunError, UsageError

EXIT_CLOSED_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


class _Interrupted(Exception):
    """Ctrl-C."""


class _PipeClosed(Exception):
    """Whoever read our output has gone."""


@dataclass(frozen=True)
class Verb:
    """One line of `gpurun --help`; `gpurun.cli.<name>` holds the rest."""

    section: str
    name: str
    help: str


VERBS = {
    verb.name: verb
    for verb in (
        Verb("Runs", "submit", "Send the project to a host and start a script or job file there"),
        Verb("Runs", "ps", "List runs: state, GPUs, since when, how far"),
        Verb("Runs", "status", "One run in full: what it waits for, or why it failed"),
        Verb("Runs", "compare", "Arguments, code, environment and metrics of runs, side by side"),
        Verb("Runs", "logs", "What a run printed; -f follows it"),
        Verb("Runs", "wait", "Wait until runs have ended; ends with the job's exit code"),
        Verb("Runs", "stop", "End runs: ask first, kill when the grace time is over"),
        Verb("Runs", "resume", "Let a run go on from its last checkpoint, here or on another host"),
        Verb("Runs", "tunnel", "TensorBoard, Jupyter or a port of a run, in your browser"),
        Verb("Runs", "shell", "A shell inside a run's container or environment"),
        Verb("Runs", "rm", "Remove runs that have ended from their host"),
        Verb("Runs", "prune", "Remove many: what was fetched, what is old"),
        Verb("Files", "fetch", "Bring back what runs wrote: log, metrics, checkpoints first"),
        Verb("Files", "push", "Put data into a host's lasting data folder"),
        Verb("Files", "data", "List and remove the data that push has sent"),
        Verb("Files", "which", "Which run, commit and step a checkpoint came from"),
        Verb("Files", "path", "Where a run's files are, as host:/path for scp and the like"),
        Verb("Hosts", "host", "add, use, ls, rm, check, prepare, leave: the machines with the GPUs"),
        Verb("Project", "init", "Write a Lightning project that can be submitted as it is"),
        Verb("Project", "demo", "Try everything on this machine alone, without a GPU"),
    )
}

FIRST_LINE = "Run a training script on a GPU host over SSH, and bring back what it wrote."
EPILOG = """\
Start with:
  gpurun host add box user@address     let gpurun know a host, and check it
  gpurun submit train.py --gpus 2 -f   send this project, train, follow the log
  gpurun fetch                         bring back what the newest run wrote

RUN is an id, a name, or the beginning of one (train-7f3k, tr); without it, the
newest run of this project.

Exit codes:
  N    the job's own, with submit -f, wait and status --exit-code
  1    fetch --best, --last and which: there is no such checkpoint or run
  2    wrong use or configuration
  3    host check --gpu: the host has no GPU
  124  wait: the time was over first
  125  gpurun failed
  130  interrupted with Ctrl-C; what runs on a host goes on
  255  the host is unreachable or let nobody in"""


class Verbs(TyperGroup):
    """The root: finds a verb by name without importing the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        return as_command(importlib.import_module(f"gpurun.cli.{cmd_name}"), cmd_name)

    def get_help_option(self, ctx: Any) -> Any:
        return quick(super().get_help_option(ctx))

    def invoke(self, ctx: Any) -> Any:
        # Typer turns these two into plain exit codes; `main` has more to do.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error
        except BrokenPipeError as error:
            raise _PipeClosed from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in VERBS and not ctx.resilient_parsing:
            raise _no_such_verb(args)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        from typer.core import CompletionItem  # type: ignore[attr-defined]

        names = [CompletionItem(v.name, help=v.help) for v in VERBS.values() if v.name.startswith(incomplete)]
        return names + ([] if names else super().shell_complete(ctx, incomplete))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(f"{FIRST_LINE}\n\nUsage: gpurun VERB [OPTIONS] [ARGUMENTS]\n")
        sections: dict[str, list[tuple[str, str]]] = {}
        for verb in VERBS.values():
            sections.setdefault(verb.section, []).append((verb.name, verb.help))
        print_sections(formatter, sections)
        options = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        print_sections(formatter, {"Options": options})
        formatter.write(f"\n{EPILOG}\n")


app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from gpurun import __version__

        output.out(f"gpurun {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show every ssh and rsync command, and where an error came from.")
    ] = False,
) -> None:
    """Options that stand before the verb; --debug is taken out of the line before (see main)."""


def main(args: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Everything that can go wrong ends here."""
    args, debug = _take_debug(list(args))
    if debug:
        output.show_commands()
    try:
        return _ended(args, debug)
    finally:
        _tell_trouble()


def _ended(args: list[str], debug: bool) -> int:
    try:
        return _run(args)
    except GpurunError as error:
        output.print_error(error.what, error.place, _next(error))
        if debug:
            output.print_traceback(error)
        return error.exit_code
    except (_Interrupted, KeyboardInterrupt):
        output.say("interrupted")
        return words.EXIT_INTERRUPTED
    except (_PipeClosed, BrokenPipeError):
        # `gpurun logs | head`. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CLOSED_PIPE
    except Exception as error:  # noqa: BLE001 - a bug, or a disk of this machine
        if not _tell_disk(error):
            _tell_bug(args, error, debug=debug)
        elif debug:
            output.print_traceback(error)
        return words.EXIT_FAILED


def _tell_disk(error: Exception) -> bool:
    """Whether a disk of this machine was the reason, which then is told."""
    from gpurun import disk

    known = disk.explain(error) if isinstance(error, OSError) else None
    if known is None:
        return False
    try:
        sys.stdout.flush()
    except OSError:  # `gpurun logs > file`. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    output.print_error(known.what, known.place, known.next_step)
    return True


def _tell_bug(args: Sequence[str], error: Exception, *, debug: bool) -> None:
    """One line, and a log that can be pasted."""
    log = output.write_bug_log(args, error)
    what = f"gpurun has a bug: {type(error).__name__}: {error}"
    if log is None:
        output.print_error(
            what, "No disk has room for the whole story, so it follows here", "report it with these lines"
        )
    else:
        output.print_error(what, f"The whole story is in {log}", "report it with that file")
    if debug or log is None:
        output.print_traceback(error)


def _tell_trouble() -> None:
    """One warning when this laptop's state could not be read or written, whatever the verb was."""
    locked = sys.modules.get("gpurun.locked")  # not loaded: nothing was tried
    error = locked.trouble() if locked is not None else None
    if error is not None:
        from gpurun import disk

        output.warn(f"what gpurun knows on this machine is not kept up to date ({disk.short(error)})")


def _run(args: list[str]) -> int:
    command = typer.main.get_command(app)
    for param in command.params:
        quick(param)
    try:
        result = command.main(args or ["--help"], prog_name="gpurun", standalone_mode=False)
    except typer.Abort:
        raise _Interrupted from None
    except typer.TyperException as error:
        _raise_as_usage(error, args)
    return result if isinstance(result, int) else 0


def _raise_as_usage(error: typer.TyperException, args: Sequence[str]) -> NoReturn:
    context = getattr(error, "ctx", None)
    verb = context.command_path if context is not None else " ".join(["gpurun", *args[:1]])
    message = error.format_message().rstrip(".")
    raise UsageError(message[:1].lower() + message[1:], f"{verb} --help") from error


def _no_such_verb(args: list[str]) -> UsageError:
    typed = args[0]
    near = difflib.get_close_matches(typed, VERBS, n=1, cutoff=0.6)
    if near:
        return UsageError(f"there is no verb {typed!r}", " ".join(["gpurun", near[0], *args[1:]]))
    if typed.endswith((".py", ".sh", ".toml")):
        return UsageError(f"there is no verb {typed!r}", " ".join(["gpurun", "submit", *args]))
    return UsageError(f"there is no verb {typed!r}", "gpurun --help")


def _next(error: GpurunError) -> str:
    if error.code != NO_NAME:
        return error.next_step
    from gpurun.hosts.known import did_you_mean

    if ":" in error.host:  # an address: ssh knows no ports in names
        return f"let gpurun know the host, and use the name: gpurun host add NAME {error.host}"
    return did_you_mean(error.host) + error.next_step


def _take_debug(args: list[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere before the job's own arguments."""
    end = args.index("--") if "--" in args else len(args)
    own = [arg for arg in args[:end] if arg != "--debug"]
    return own + args[end:], len(own) < end
