"""`gpurun`: which verbs there are, and the one place where an error becomes a message and an exit code.

A verb's module is imported when that verb is used, so that `gpurun --help` and a completion stay quick.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from gpurun.agent import vocabulary as words
from gpurun.cli import output
from gpurun.cli.command import as_command, quick
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


RUNS, OTHER = "Runs", "Files, hosts and projects"
VERBS = {
    verb.name: verb
    for verb in (
        Verb(RUNS, "submit", "Start a script or job file"),
        Verb(RUNS, "ps", "List runs"),
        Verb(RUNS, "status", "Show one run in full"),
        Verb(RUNS, "compare", "Compare runs side by side"),
        Verb(RUNS, "logs", "Print what a run wrote"),
        Verb(RUNS, "wait", "Wait until runs have ended"),
        Verb(RUNS, "stop", "Stop runs"),
        Verb(RUNS, "resume", "Resume from a checkpoint"),
        Verb(RUNS, "tunnel", "Open TensorBoard or Jupyter"),
        Verb(RUNS, "shell", "Open a shell in a run"),
        Verb(RUNS, "rm", "Remove ended runs"),
        Verb(RUNS, "prune", "Remove many ended runs"),
        Verb(OTHER, "fetch", "Bring back what runs wrote"),
        Verb(OTHER, "push", "Send data to a host"),
        Verb(OTHER, "data", "List and remove that data"),
        Verb(OTHER, "which", "Find the run of a checkpoint"),
        Verb(OTHER, "path", "Print where a run's files are"),
        Verb(OTHER, "host", "Add, check and leave hosts"),
        Verb(OTHER, "init", "Write a project to start from"),
        Verb(OTHER, "demo", "Try everything on this machine"),
        Verb(OTHER, "help", "Explain a command or a topic"),
    )
}

FIRST_LINE = "Run a training script on a GPU host over SSH, and bring back what it wrote."
EPILOG = """\
Start with:
  gpurun host add box user@address     add a host and check it
  gpurun submit train.py --gpus 2 -f   send this project, train, follow the log
  gpurun fetch                         bring back what the newest run wrote

More: gpurun help COMMAND, gpurun help options, exit-codes, or runs"""


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
        """One screen of 24 lines: two columns of commands. The rest is in `gpurun help`."""
        columns = [[f"{section}:"] for section in (RUNS, OTHER)]
        for verb in VERBS.values():
            columns[verb.section != RUNS].append(f"  {verb.name:<7} {verb.help}")
        left = max(map(len, columns[0])) + 2
        rows = itertools.zip_longest(*columns, fillvalue="")
        formatter.write(f"{FIRST_LINE}\nUsage: gpurun COMMAND [OPTIONS] [ARGUMENTS]\n\n")
        formatter.write("".join(f"{one:<{left}}{other}".rstrip() + "\n" for one, other in rows))
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
        if isinstance(error, FileNotFoundError) and _folder_is_gone():
            output.print_error("the working directory is not there any more", "", "cd to a folder that is there")
            return words.EXIT_USAGE
        if not _tell_disk(error):
            _tell_bug(args, error, debug=debug)
        elif debug:
            output.print_traceback(error)
        return words.EXIT_FAILED


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _tell_disk(error: Exception) -> bool:
    """Return whether a disk of this machine was the reason, which then is told."""
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
        return UsageError(f"there is no command {typed!r}", shlex.join(["gpurun", near[0], *args[1:]]))
    if typed.endswith((".py", ".sh", ".toml")):
        return UsageError(f"there is no command {typed!r}", shlex.join(["gpurun", "submit", *args]))
    return UsageError(f"there is no command {typed!r}", "gpurun --help")


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
