"""Compare a JSON value with a type of `gpurun.agent.schema`: what mypy promises of the code, and what really lies in a file."""

from __future__ import annotations

from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict


def misfits(value: Any, kind: Any, at: str = "") -> list[str]:
    """Return where `value` is not of the type `kind`: a key that is missing, not declared, or of another type."""
    origin = get_origin(kind)
    if kind in (Any, object):
        return []
    if is_typeddict(kind):
        return _object(value, kind, at)
    if origin is Union:
        tries = [misfits(value, one, at) for one in get_args(kind)]
        return min(tries, key=len)
    if origin is list:
        (inner,) = get_args(kind)
        return _wrong(value, list, at) or [
            wrong for i, one in enumerate(value) for wrong in misfits(one, inner, f"{at}[{i}]")
        ]
    if origin is tuple:  # a list in JSON
        kinds = get_args(kind)
        if not isinstance(value, (list, tuple)) or len(value) != len(kinds):
            return [f"{at}: not a list of {len(kinds)}"]
        return [wrong for i, one in enumerate(kinds) for wrong in misfits(value[i], one, f"{at}[{i}]")]
    if origin is dict:
        inner = get_args(kind)[1]
        return _wrong(value, dict, at) or [
            wrong for key, one in value.items() for wrong in misfits(one, inner, f"{at}.{key}")
        ]
    return _wrong(value, kind, at)


def _object(value: Any, kind: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at}: not an object"]
    fields = get_type_hints(kind)
    missing = [f"{at}.{key}: missing" for key in kind.__required_keys__ if key not in value]
    unknown = [f"{at}.{key}: not in {kind.__name__}" for key in value if key not in fields]
    return [
        *missing,
        *unknown,
        *(wrong for key, one in value.items() if key in fields for wrong in misfits(one, fields[key], f"{at}.{key}")),
    ]


def _wrong(value: Any, kind: type, at: str) -> list[str]:
    fits = type(value) in (int, float) if kind is float else type(value) is kind
    return [] if fits else [f"{at}: {value!r} is not {kind.__name__}"]
