"""How a verb's function becomes a command, and how its help looks: plain text, a section for each panel."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_MACHINE_WORDS = re.compile(r"\s+\[(?:required|x[<>]=?\d+)\]")  # what typer adds; the usage line says it
_DEFAULT = re.compile(r"\s+\[default: ([^]]*)\]")
CONTEXT = {"help_option_names": ["-h", "--help"]}


def as_command(module: ModuleType, name: str) -> Any:
    """The command in a verb's module: its `app` when it has verbs of its own, else its function `name`."""
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    kind = getattr(module, "COMMAND", VerbCommand)
    examples = getattr(module, "EXAMPLES", None)
    single.command(name, cls=kind, epilog=examples, context_settings=CONTEXT)(getattr(module, name))
    return typer.main.get_command(single)


def noun(name: str, help: str) -> typer.Typer:
    """A verb with verbs of its own, such as `host`; alone it shows its help."""
    app = typer.Typer(
        name=name,
        help=help,
        cls=NounGroup,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )

    @app.callback(invoke_without_command=True, help=help)
    def alone(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            print(ctx.get_help())

    return app


class VerbCommand(TyperCommand):
    """A verb: options may stand anywhere; its examples stand at the foot of its help."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        for param in self.params:
            quick(param)

    def get_help_option(self, ctx: Any) -> Any:
        return quick(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as their metavar has them: typer would write `[[RUN]...]...`."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(param.metavar or str(param.name).upper() for param in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            panel = getattr(param, "rich_help_panel", None)
            text = _DEFAULT.sub(r" [\1]", _MACHINE_WORDS.sub("", record[1]))
            if param.param_type_name == "argument":
                # Its metavar says more than Python's word for its type.
                sections.setdefault("Arguments", []).append((param.metavar or record[0], text))
            else:
                sections.setdefault(panel or "Options", []).append((record[0], text))
        # The general ones last: what is special about a verb is what its reader looks for.
        if "Options" in sections:
            sections["Options"] = sections.pop("Options")
        print_sections(formatter, sections)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            lines = "".join(f"  {line}\n" for line in self.epilog.strip().splitlines())
            formatter.write(f"\nExamples:\n{lines}")


def quick(param: Any) -> Any:
    """Prepare an option or argument: its help in our words, its value as it was typed."""
    if "--help" in param.opts:
        param.help = "Show this help."
    if hasattr(param, "_runtime_param"):
        param._runtime_param = _AsTyped(param.type_descriptor.annotation)
    return param


class _AsTyped:
    """Return an option's text, or a path. Typer would load pydantic for that, which takes 0.1 s.

    The verbs read numbers and time spans themselves, with `problems.read_option`, which has better messages.
    """

    def __init__(self, annotation: Any) -> None:
        self._kind = Path if annotation in (Path, list[Path]) else lambda value: value

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        return [self._kind(each) for each in value] if isinstance(value, list | tuple) else self._kind(value)


class NounGroup(TyperGroup):
    """`gpurun host ...`: its verbs get the same help as the others."""

    command_class = VerbCommand

    def get_help_option(self, ctx: Any) -> Any:
        return quick(super().get_help_option(ctx))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The first sentence of each command's help, whole: typer would cut it to fit a line."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            text = " ".join(((command and command.help) or "").split("\n\n")[0].split())
            rows.append((name, text.partition(". ")[0].rstrip(".")))
        print_sections(formatter, {"Commands": rows})

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["COMMAND", "[OPTIONS]", "[ARGUMENTS]"]


def print_sections(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    """Sections of names and their meaning, the second column of all of them at one place."""
    first = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
    for heading, rows in sections.items():
        with formatter.section(heading):
            formatter.write_dl([(name.ljust(min(first, 26)), text) for name, text in rows], col_max=26)
