"""The line of `submit` falls in two: gpurun's part, and behind `--` the script's own arguments.

`submit train.py --lr 1e-3` is what everybody types first. It is answered with the line that was meant.
"""

from __future__ import annotations

import difflib
import shlex
from typing import Any

import typer

from gpurun.cli.command import VerbCommand
from gpurun.errors import UsageError

KEY = "gpurun.own_arguments"


class CommandWithArguments(VerbCommand):
    """A command whose arguments behind `--` belong to somebody else; they are in `ctx.meta[KEY]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ours, theirs = split(args)
        ctx.meta[KEY] = theirs
        try:
            rest: list[str] = super().parse_args(ctx, list(ours))
        except typer.TyperException as error:
            _say_what_was_meant(self, ctx, ours, theirs, error)
            raise
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


def split(args: list[str]) -> tuple[list[str], list[str] | None]:
    """What stands before the first `--`, and what behind it; None when there is no `--`."""
    if "--" not in args:
        return list(args), None
    at = args.index("--")
    return args[:at], args[at + 1 :]


def _say_what_was_meant(
    command: Any, ctx: Any, ours: list[str], theirs: list[str] | None, error: typer.TyperException
) -> None:
    """Raise UsageError with the corrected line when there are words that gpurun does not know behind the script."""
    kept, foreign = sort_out(ours, takes_value(command, ctx))
    if not foreign or not any(not word.startswith("-") for word in kept):
        return
    verb = f"gpurun {ctx.info_name}"
    line = shlex.join([*verb.split(), *kept, "--", *foreign, *(theirs or [])])
    strange = next((word for word in foreign if word.startswith("-")), foreign[0]).partition("=")[0]
    near = difflib.get_close_matches(strange, takes_value(command, ctx), n=1, cutoff=0.75)
    if near:
        what = f"{verb} does not know {strange}; did you mean {near[0]}?"
        raise UsageError(what, f"or, when it is the script's own: {line}") from error
    raise UsageError(f"{verb} does not know {strange}: the script's own arguments stand after --", line) from error


def takes_value(command: Any, ctx: Any) -> dict[str, bool]:
    """Every option of the command, and whether a value follows it."""
    return {
        name: not (getattr(param, "is_flag", False) or getattr(param, "count", False))
        for param in command.get_params(ctx)
        if param.param_type_name == "option"
        for name in (*param.opts, *param.secondary_opts)
    }


def sort_out(args: list[str], options: dict[str, bool]) -> tuple[list[str], list[str]]:
    """Which words are gpurun's, and which the script's: unknown options, what follows them, a second plain word."""
    kept: list[str] = []
    foreign: list[str] = []
    has_script, after_foreign, at = False, False, 0
    while at < len(args):
        word = args[at]
        name, sign, _ = word.partition("=")
        if word.startswith("-") and word != "-":
            after_foreign = False
            if name in options and (sign or not options[name]):
                kept.append(word)
            elif name in options:
                kept += args[at : at + 2]
                at += 1
            elif len(word) > 2 and word[1] != "-" and word[:2] in options:  # -g2, -fy
                kept.append(word)
            else:
                foreign.append(word)
                after_foreign = True
        elif has_script or after_foreign:
            foreign.append(word)
        else:
            kept.append(word)
            has_script = True
        at += 1
    return kept, foreign
