"""The configuration reference of the README, made from the schema.

`python -m gpurun.config.reference` prints it; `python -m gpurun.config.reference README.md` puts it between the marks
in that file.
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gpurun.config.schema import JOB_FILE_ONLY, AddressConfig, HostProfile, HostsFile, JobConfig

BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"

_KINDS = {
    "gpus": 'number or `"all"`',
    "memory": "size",
    "shm_size": "size",
    "max_duration": "time span",
    "grace": "time span",
    "idle": "time span",
    "ports": "list",
    "env": "list or table",
    "mounts": "list",
    "dependencies": "`false` or path",
    "engine": "text or list",
    "base_image": "text or table",
    "address": "table",
    "data": "list",
    "hosts": "table",
}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", tuple: "list", dict: "table"}


_JOB = (
    """**A job** (an option, a job file, or `gpurun.toml` / `[tool.gpurun]` of the project; {} in a job file alone):"""
)


def markdown() -> str:
    """One table for each of: what a job says, hosts.toml, a host's profile, its address."""
    sections = [
        (_JOB.format(", ".join(f"`{key}`" for key in JOB_FILE_ONLY)), _table(JobConfig)),
        ("**hosts.toml**, in your configuration directory:", _table(HostsFile)),
        ("**A host**, `[hosts.NAME]` of hosts.toml:", _table(HostProfile, {"data": "table"})),
        ("**An address**, `address = { ... }` of a host:", _table(AddressConfig)),
    ]
    return "\n\n".join(head + "\n\n" + "\n".join(rows) for head, rows in sections)


def _table(model: type[BaseModel], kinds: dict[str, str] | None = None) -> list[str]:
    rows = ["| key | is | meaning |", "|---|---|---|"]
    for key, field in model.model_fields.items():
        kind = (_KINDS | (kinds or {})).get(key) or _kind(field.annotation)
        rows.append(f"| `{key}` | {kind} | {_meaning(field)} |")
    return rows


def _meaning(field: Any) -> str:
    text = " ".join((field.description or "").split())
    shown = field.default
    if shown is None or isinstance(shown, bool | tuple) or field.is_required() or field.default_factory:
        return text
    return f"{text} Default: {shown:g}."


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
        return " or ".join(_kind(option) for option in options)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in typing.get_args(annotation))
    return _NAMES[typing.get_origin(annotation) or annotation]


def within(text: str) -> str:
    """`text` with the reference between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the text lacks the marks {BEGIN} and {END}")
    return f"{before}{begin}\n{markdown()}\n{end}{after}"


def main(arguments: list[str]) -> None:
    """Print the reference, or write it into the files that are named."""
    for name in arguments:
        file = Path(name)
        file.write_text(within(file.read_text()))
    if not arguments:
        sys.stdout.write(markdown() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
