"""Readers of values: each takes what TOML or an option holds, returns the value, and raises ValueError that says what is wrong.

A schema is a frozen dataclass whose fields are made by `key` and `required`. `table` reads all of them and raises one
`Invalid` for everything that is wrong in it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from gpurun.secret import Secret

T = TypeVar("T")
D = TypeVar("D")
Path = tuple[str | int, ...]  # of a value in the table that is read: keys, and places in lists


class Invalid(ValueError):
    """What is wrong inside a table or list. `found`: the path of each problem from there, and its text."""

    def __init__(self, found: Sequence[tuple[Path, str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


@overload
def key(read: Callable[[Any], T]) -> T | None: ...
@overload
def key(read: Callable[[Any], T], default: D) -> T | D: ...
def key(read: Callable[[Any], Any], default: Any = None) -> Any:
    """Declare a key that may be left out of its table."""
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"read": read})
    return dataclasses.field(default=default, metadata={"read": read})


def required(read: Callable[[Any], T]) -> T:
    """Declare a key that its table must have."""
    declared: Any = dataclasses.field(metadata={"read": read})
    return declared  # type: ignore[no-any-return]


def keys(schema: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the keys of `schema`: its fields that have a reader."""
    return {field.name: field for field in dataclasses.fields(schema) if "read" in field.metadata}


def values(schema: type, given: Any) -> dict[str, Any]:
    """Return the values of the keys in the table `given`, read. Raise Invalid that lists everything that is wrong."""
    given = _table(given)
    known = keys(schema)
    missing = [name for name, key in known.items() if _is_required(key) and name not in given]

    def reader(name: str) -> Callable[[Any], Any]:
        read: Callable[[Any], Any] = known[name].metadata["read"] if name in known else _unknown(name, list(known))
        return read

    return _read_each(((name, reader(name), value) for name, value in given.items()), missing)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("wants text in quotes")  # noqa: TRY004 - each reader raises ValueError
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("wants true or false")  # noqa: TRY004
    return value


def whole_number(at_least: int, at_most: int | None = None) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = _number(value, int, "wants a whole number")
        if number < at_least:
            raise ValueError(f"must be greater than or equal to {at_least}")
        if at_most is not None and number > at_most:
            raise ValueError(f"must be less than or equal to {at_most}")
        return int(number)

    return read


def number_above(limit: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = _number(value, float, "wants a number")
        if not number > limit:
            raise ValueError(f"must be greater than {limit:g}")
        return number

    return read


def one_of(*words: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in words:
            raise ValueError("wants " + " or ".join(map(repr, words)))
        return value

    return read


def list_of(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def read_list(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError("wants a list: [ ... ]")  # noqa: TRY004
        return tuple(_read_each((place, read, each) for place, each in enumerate(value)).values())

    return read_list


def table_of(read: Callable[[Any], T]) -> Callable[[Any], dict[str, T]]:
    """Read a table of any names."""

    def read_table(value: Any) -> dict[str, T]:
        return _read_each((name, read, each) for name, each in _table(value).items())

    return read_table


def table(schema: type[T]) -> Callable[[Any], T]:
    return lambda value: schema(**values(schema, value))


def variable_name(name: str) -> str:
    """`name`, when it can be a variable's. Raises ValueError, which never shows a value."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a valid name of an environment variable")
    return name


def variables(value: Any) -> dict[str, Secret | None]:
    """A list of "K" and "K=V", or a table K = "V", as a dict; None stands for the laptop's own value."""
    if isinstance(value, Mapping):
        pairs = [(str(name), text) for name, text in value.items()]
    elif isinstance(value, list | tuple) and all(isinstance(line, str) for line in value):
        pairs = [(name, text if sign else None) for name, sign, text in (line.partition("=") for line in value)]
    else:
        raise ValueError('wants a list such as ["WANDB_API_KEY", "LEVEL=debug"], or a table')
    return {variable_name(name): None if text is None else _variable(name, text) for name, text in pairs}


def _variable(name: str, value: Any) -> Secret:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the value of {name} wants to be text in quotes")  # noqa: TRY004
    if "\0" in str(value):
        raise ValueError(f"the value of {name} holds a NUL byte")
    return Secret(str(value))


def nearest(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean ...?` for the word that is nearest, or the list of what is known."""
    import difflib

    close = difflib.get_close_matches(word.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (known: {', '.join(known)})" if known else ""


def _read_each(items: Iterable[tuple[Any, Callable[[Any], Any], Any]], missing: Sequence[str] = ()) -> dict[Any, Any]:
    done: dict[Any, Any] = {}
    wrong: list[tuple[Path, str]] = [((name,), "is missing") for name in missing]
    for name, read, value in items:
        try:
            done[name] = read(value)
        except Invalid as inner:
            wrong += [((name, *path), problem) for path, problem in inner.found]
        except ValueError as error:
            wrong.append(((name,), str(error)))
    if wrong:
        raise Invalid(wrong)
    return done


def _unknown(name: str, known: Sequence[str]) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        raise ValueError("unknown key" + nearest(name, known))

    return refuse


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("wants a table")  # noqa: TRY004
    return value


def _number(value: Any, kind: Callable[[Any], float], wants: str) -> float:
    """Read a number, which an option holds as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(wants)  # noqa: TRY004
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        raise ValueError(wants) from None
    if not isinstance(value, str) and number != value:
        raise ValueError(wants)
    return number


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
