"""What is wrong in the configuration: the file and its line, or the option, the key's whole path, and the problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gpurun import toml
from gpurun.config import readers
from gpurun.errors import UsageError

T = TypeVar("T")


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

    def named(self, path: Sequence[Any], text: str) -> str:
        """Return `text` behind the whole name of the key that it is about."""
        return text if self.text is None else f"{'.'.join(map(str, path))}: {text}"

    def line_of(self, path: Sequence[Any]) -> int | None:
        return toml.line_of(self.text(), [*self.table, *path]) if self.text is not None else None


def read(schema: type, given: Mapping[str, Any], source: Source) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of the keys in `given`, or none and all that is wrong with them."""
    try:
        return readers.values(schema, given), []
    except readers.Invalid as error:
        return {}, [Problem(source.name, source.named(path, text), source.line_of(path)) for path, text in error.found]


def read_option(name: str, given: Any, read: Callable[[Any], T], example: str) -> T | None:
    """Return what `read` makes of an option's text, None when it was not given. Raise UsageError that names the option."""
    try:
        return None if given is None else read(given)
    except ValueError as error:
        raise UsageError(f"{name}: {error}", example) from None


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
