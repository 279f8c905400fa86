"""Reading TOML files, and finding the line of what is wrong in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpurun.errors import UsageError

Document = dict[str, Any]  # what a TOML file, or a table of one, holds
_AT = re.compile(r" \(at (line \d+, column \d+|end of document)\)$")


def read(path: Path) -> Document:
    """Return the content of `path`; empty when there is no such file. Raises UsageError with the line where it is broken."""
    import tomllib

    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        place = f"{path}, {at[1]}" if at else str(path)
        raise UsageError(f"{place}: not valid TOML: {_AT.sub('', str(error))}", _FIX) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: it is not UTF-8", _FIX) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "make it a file that you may read") from error


_FIX = "fix the file and repeat the command"


def line_of(text: str, path: Sequence[Any]) -> int | None:
    """Return the line, from 1, at which the value at `path` begins in a valid document; of a list, the line of its key.

    The parser itself says so: the statement that sets a value is the one behind which the document has it.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    keys = _keys(_whole(lines, len(lines))[1], path)
    if not keys:
        return None
    without, having = 0, len(lines)  # lines from the top
    while having - without > 1:
        middle = (without + having) // 2
        end, document = _whole(lines, middle)
        if _keys(document, keys) == keys:
            having = end
        else:
            without = middle
    return _whole(lines, having - 1)[0] + 1


def _whole(lines: Sequence[str], end: int) -> tuple[int, Document]:
    """The first `end` lines, or as many of them as do not end inside a statement, and what they say."""
    import tomllib

    while end:
        try:
            return end, tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            end -= 1
    return 0, {}


def _keys(document: Any, path: Sequence[Any]) -> list[str]:
    """The beginning of `path` that there is in tables alone."""
    found: list[str] = []
    for key in path:
        if not isinstance(document, dict) or key not in document:
            break
        document = document[key]
        found.append(key)
    return found
