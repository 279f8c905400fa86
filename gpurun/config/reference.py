"""The configuration reference of the README, made from the schema.

`python -m gpurun.config.reference` prints it; `python -m gpurun.config.reference README.md` puts it between the marks
in that file.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import types
import typing
from pathlib import Path
from typing import Any

from gpurun.config.hosts import AddressConfig, HostProfile, Hosts
from gpurun.config.readers import keys
from gpurun.config.schema import JOB_FILE_ONLY, JobConfig

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
        ("**hosts.toml**, in your configuration directory:", _table(Hosts)),
        ("**A host**, `[hosts.NAME]` of hosts.toml:", _table(HostProfile, {"data": "table"})),
        ("**An address**, `address = { ... }` of a host:", _table(AddressConfig)),
    ]
    return "\n\n".join(head + "\n\n" + "\n".join(rows) for head, rows in sections)


def descriptions(schema: type) -> dict[str, str]:
    """Return the text behind each field of a dataclass."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(schema)).body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _table(schema: type, kinds: dict[str, str] | None = None) -> list[str]:
    rows = ["| key | is | meaning |", "|---|---|---|"]
    meanings, types_of = descriptions(schema), typing.get_type_hints(schema)
    for key, field in keys(schema).items():
        kind = (_KINDS | (kinds or {})).get(key) or _kind(types_of[key])
        rows.append(f"| `{key}` | {kind} | {meanings[key]}{_default(field.default)} |")
    return rows


def _default(value: Any) -> str:
    return f" Default: {value:g}." if isinstance(value, int | float) and not isinstance(value, bool) else ""


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
