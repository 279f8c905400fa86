"""A notebook becomes a script: a marker before each cell, IPython's syntax decided upon, what a cell ends with shown.

A cell's number is the one that Jupyter shows beside it after "Restart and run all": empty cells and those with the tag
`gpurun-skip` are passed over, and a skipped one keeps its number. Line N of a cell is the Nth line below its marker's
call, so that gpurun_notebook (in the job) can name cell and line in a traceback.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from gpurun.errors import UsageError
from gpurun.notebook import magics
from gpurun.notebook.magics import SHIM, Refused

SKIP = "gpurun-skip"
_NEEDED = ("nbconvert", "nbformat", "IPython")


@dataclass(frozen=True)
class Converted:
    """`source` is the script. `requirements`: what its `%pip install` lines ask for. `notes` are for the person."""

    source: str
    requirements: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Cell:
    """One code cell on its way. Edits are (first byte, byte behind the last, new text) of its source as UTF-8."""

    number: int
    found: magics.Found
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    futures: list[str] = field(default_factory=list)


def convert(text: str, path: str) -> Converted:
    """Make a script of the notebook `text`, which lies at `path` in its project.

    Raises UsageError: for what is no Python notebook, and with the number of every cell that no script can run.
    """
    parts: list[str] = []
    wrong: list[str] = []
    futures: list[str] = []
    found, number = magics.Found(), 0
    for number, cell in _numbered(_read(text, path)):
        if cell["cell_type"] == "markdown":
            parts.append("# %% [markdown]\n" + _commented(cell["source"]))
        elif SKIP in cell["metadata"].get("tags", ()):
            parts.append(f"# %% cell {number} stays out: it has the tag {SKIP}")
        else:
            done = _Cell(number, found)
            try:
                parts.append(f"# %% cell {number}\n{SHIM}.cell({number})\n{_script_of(done, cell['source'])}")
            except Refused as error:
                wrong.append(f"  cell {number}: {error}")
            futures += done.futures
    if wrong:
        raise UsageError(
            "\n".join([f"{path} cannot run without Jupyter as it is:", *wrong]),
            f"change these cells, or give them the tag {SKIP}: then they stay out of the run",
        )
    if not number:
        raise UsageError(f"{path} has no code", "name another notebook")
    return Converted(
        _header(path, futures) + "\n\n".join(parts) + f"\n\n{SHIM}.end()\n",
        tuple(found.requirements),
        tuple(found.notes),
    )


def script_name(path: str) -> str:
    """What the script of the notebook at `path` is called."""
    return PurePosixPath(path).stem + ".py"


def _header(path: str, futures: list[str]) -> str:
    future = f"from __future__ import {', '.join(dict.fromkeys(futures))}\n" if futures else ""
    named = repr(path)
    return (
        f"# Made by gpurun from {named}; its cells are numbered as after `Restart and run all`.\n"
        f"{future}import gpurun_notebook as {SHIM}\n\n{SHIM}.begin(__file__, {named})\n\n"
    )


def _read(text: str, path: str) -> list[Any]:
    """The notebook's cells, of whatever version its format is. Raises UsageError."""
    import importlib.util

    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"{path} is a notebook, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, which make a script of it",
            "pip install nbconvert ipython (with pipx: pipx inject gpurun nbconvert ipython)",
        )
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that older notebooks lack
            notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UsageError(
            f"{path} is no notebook: {str(error) or type(error).__name__}", "save it again in Jupyter"
        ) from error
    told = notebook["metadata"]
    language = (told.get("language_info") or {}).get("name") or (told.get("kernelspec") or {}).get("language")
    if language not in (None, "python"):
        raise UsageError(
            f"{path} is a notebook in {language}; gpurun runs those in Python",
            "submit a script instead: gpurun submit run.sh",
        )
    return list(notebook["cells"])


def _numbered(cells: list[Any]) -> Iterator[tuple[int, Any]]:
    """The cells that hold code or text, each with the number of the last code cell up to it."""
    number = 0
    for cell in cells:
        if cell["source"].strip() and cell["cell_type"] in ("code", "markdown"):
            number += cell["cell_type"] == "code"
            yield number, cell


def _commented(text: str) -> str:
    lines = text.encode("utf-8", "replace").decode().splitlines()
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _script_of(cell: _Cell, source: str) -> str:
    """The cell as Python, line by line. Raises Refused."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise Refused("it holds half a character, which no file can") from None
    lines = source.split("\n")
    first = next(number for number, line in enumerate(lines) if line.strip())
    if not lines[first].startswith("%%"):
        return _python_of(cell, source)
    magic = magics.cell_magic(lines[first], "\n".join(lines[first + 1 :]), cell.number, cell.found)
    if not magic.runs_python:
        return magic.before
    inner = "\n" * (first + 1) + "\n".join(lines[first + 1 :])
    body = _python_of(cell, inner) if inner.strip() else inner
    before = "\n" * first + magic.before
    return before + body[first:] + (f"\n{magic.after}" if magic.after else "")


def _python_of(cell: _Cell, source: str) -> str:
    try:
        python = _plain(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(python)
    except SyntaxError as error:
        raise Refused(_no_python(error, source)) from None
    at = _offsets(python)
    _decide_on_magics(cell, tree, at)
    _rename_imports(cell, tree, at)
    _show_last(cell, tree, at, python.encode())
    edited = _edited(python.encode(), cell.edits).decode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(edited, "cell", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Refused(_no_python(error, source, awaits=_awaits_at_the_top(edited))) from None
    return edited


def _plain(source: str) -> str:
    """IPython's syntax as calls of `get_ipython()`, on the lines where it stood."""
    import difflib

    from nbconvert.filters import ipython2python

    begun = source.lstrip("\n")  # it drops empty lines at the top, and makes one line of a command that has several
    before, after = begun.split("\n"), ipython2python(begun).rstrip("\n").split("\n")  # type: ignore[no-untyped-call]
    kept = [""] * (len(source) - len(begun))
    for _, start, end, first, last in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        kept += after[first:last] + [""] * (end - start - (last - first))
    return "\n".join(kept).rstrip("\n")


def _no_python(error: SyntaxError | ValueError, source: str, *, awaits: bool = False) -> str:
    line = getattr(error, "lineno", None)
    text = (source.split("\n")[line - 1] if line and line <= source.count("\n") + 1 else "").strip()
    if re.match(r"(pip3?|conda|ls|cd|cat|mkdir|cp|mv|rm)\s", text):
        return f"`{text}` is no Python: write `%{text}`"
    if awaits:
        return f"line {line}: `{text}` awaits outside of a function: asyncio.run(...) does that in a script"
    return f"line {line}: `{text}` is no Python: {getattr(error, 'msg', error)}"


def _awaits_at_the_top(source: str) -> bool:
    """Return whether `source` would be Python if a module could await, as a cell can."""
    try:
        compile(source, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _offsets(text: str) -> Callable[[int, int], int]:
    """From ast's line (from 1) and column (bytes) to a byte of the whole."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line.encode()) + 1)
    return lambda line, column: starts[line - 1] + column


def _span(node: ast.expr | ast.stmt, at: Callable[[int, int], int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)


def _calls_of_ipython(tree: ast.AST) -> Iterator[tuple[ast.Call, ast.Attribute]]:
    """`get_ipython().something(...)`: what IPython makes of its own syntax, and what an exported script holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            inner = node.func.value
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "get_ipython":
                yield node, node.func


def _decide_on_magics(cell: _Cell, tree: ast.AST, at: Callable[[int, int], int]) -> None:
    for call, function in _calls_of_ipython(tree):
        words = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if len(words) != len(call.args):
            if function.attr not in ("system", "getoutput"):
                raise Refused(f"get_ipython().{function.attr}(...) with what is known only when it runs")
            cell.edits.append((*_span(function, at), f"{SHIM}.{function.attr}"))
            continue
        cell.edits.append((*_span(call, at), magics.line(function.attr, words, cell.number, cell.found)))


def _rename_imports(cell: _Cell, tree: ast.Module, at: Callable[[int, int], int]) -> None:
    """`from __future__` stands once, at the top of a script; tqdm's bar for notebooks needs a notebook."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        start, end = _span(node, at)
        if node.module == "__future__":
            cell.futures += [alias.name for alias in node.names]
            cell.edits.append((start, end, f"pass  # {', '.join(cell.futures)}: at the top"))
        elif node.module == "tqdm.notebook":
            names = ", ".join(f"{one.name} as {one.asname}" if one.asname else one.name for one in node.names)
            cell.edits.append((start, end, f"from tqdm.auto import {names}"))


def _show_last(cell: _Cell, tree: ast.Module, at: Callable[[int, int], int], text: bytes) -> None:
    """What a cell ends with is shown by Jupyter, unless a `;` stands behind it."""
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        return
    start, end = _span(last, at)
    if text[end:].lstrip().startswith(b";") or text[start:].startswith(b"get_ipython().system("):
        return
    cell.edits += [(start, start, f"{SHIM}.show("), (end, end, ")")]


def _edited(text: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    parts, done = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[done:start], new.encode()]
        done = end
    return b"".join([*parts, text[done:]])
