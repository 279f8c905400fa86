"""What pydantic found wrong, in plain words: the file, the key's whole path, and the nearest key that is known."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gpurun import toml
from gpurun.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)

_WANTS = {
    "string_type": "wants text in quotes",
    "int_type": "wants a whole number",
    "int_parsing": "wants a whole number",
    "int_from_float": "wants a whole number",
    "float_type": "wants a number",
    "float_parsing": "wants a number",
    "bool_type": "wants true or false",
    "bool_parsing": "wants true or false",
    "tuple_type": "wants a list: [ ... ]",
    "list_type": "wants a list: [ ... ]",
    "dict_type": "wants a table",
    "model_type": "wants a table",
    "missing": "is missing",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: in which file or option, what, and in which line of the file."""

    where: str
    text: str
    line: int | None = None

    @property
    def at(self) -> str:
        return "" if self.line is None else f"line {self.line}"


@dataclass(frozen=True)
class Source:
    """A TOML file, or an option of the command line, which names the key by itself. `table`: where the values stand in it."""

    name: str
    text: Callable[[], str] | None = None
    table: tuple[str, ...] = ()

    def line_of(self, path: Sequence[Any]) -> int | None:
        return toml.line_of(self.text(), [*self.table, *path]) if self.text is not None else None


def validate(model: type[Model], values: Mapping[str, Any], source: Source) -> tuple[Model | None, list[Problem]]:
    """`values` as a `model`, or None and all that is wrong with them."""
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        found = [
            Problem(source.name, _in_words(model, problem, source.text is None), source.line_of(problem["loc"]))
            for problem in error.errors(include_url=False)
        ]
        return None, list(dict.fromkeys(found))


def refuse(wrong: Sequence[Problem], next_step: str = "") -> None:
    """Raise one UsageError for all that is wrong; nothing when nothing is. A file is named once, its problems below it."""
    lines: list[str] = []
    for where in dict.fromkeys(problem.where for problem in wrong):
        here = sorted((problem for problem in wrong if problem.where == where), key=lambda problem: problem.line or 0)
        if len(here) == 1:
            place = ", ".join(filter(None, (where, here[0].at)))
            lines.append(f"{place}: {here[0].text}")
        else:
            lines.append(f"{where}:")
            lines += [f"  {': '.join(filter(None, (problem.at, problem.text)))}" for problem in here]
    if lines:
        raise UsageError("\n".join(lines), next_step)


def _in_words(model: type[BaseModel], problem: Any, option: bool) -> str:
    path = problem["loc"]
    key = "" if option else ".".join(str(part) for part in path) + ": "
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}unknown key" + nearest(str(path[-1]), _keys_at(model, path[:-1]))
    if kind == "literal_error":
        return f"{key}wants {context['expected']}"
    if kind == "value_error":
        return f"{key}{context['error']}"
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        return f"{key}{problem['msg'].replace('Input should', 'must')}"
    return f"{key}{_WANTS.get(kind, problem['msg'])}"


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` for the word that is nearest, or the list of what is known."""
    close = difflib.get_close_matches(word.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (known: {', '.join(known)})" if known else ""


def _keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """The keys of the table at `path` below `model`; none where any key goes."""
    here: Any = model
    for part in path:
        table = _table_in(here)
        if typing.get_origin(table) is dict:
            here = typing.get_args(table)[1]
        elif table is not None and part in table.model_fields:
            here = table.model_fields[part].annotation
        else:
            return []
    found = _table_in(here)
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []


def _table_in(annotation: Any) -> Any:
    """The model or dict inside an annotation such as `AddressConfig | None` or `dict[str, HostProfile]`."""
    if typing.get_origin(annotation) is dict:
        return annotation
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for found in map(_table_in, typing.get_args(annotation)) if found is not None), None)
