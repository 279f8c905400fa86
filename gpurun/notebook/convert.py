"""Convert a notebook to a script: mark each cell, replace IPython's syntax, show the last expression of each cell.

A cell has the number that Jupyter shows beside it after "Restart and run all". Empty cells and cells with the tag `gpurun-skip`
are skipped; a skipped cell keeps its number. Line N of a cell is the Nth line below the call at its marker, so that
gpurun_notebook (in the job) can name cell and line in a traceback.
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
    """A converted notebook. `source`: the script. `requirements`: those of its `%pip install` lines. `notes`: for the user."""

    source: str
    requirements: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Cell:
    """One code cell during the conversion. Edits are (first byte, byte after the last, new text) of its UTF-8 source."""

    number: int
    requests: magics.Requests
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    futures: list[str] = field(default_factory=list)


def convert(text: str, path: str) -> Converted:
    """Convert the notebook `text`, which is at `path` in its project, to a script.

    Raises UsageError for a file that is not a Python notebook, and with the number of every cell that a script cannot run.
    """
    parts: list[str] = []
    errors: list[str] = []
    futures: list[str] = []
    requests, number = magics.Requests(), 0
    for number, cell in _numbered(_read(text, path)):
        if cell["cell_type"] == "markdown":
            parts.append("# %% [markdown]\n" + _commented(cell["source"]))
        elif SKIP in cell["metadata"].get("tags", ()):
            parts.append(f"# %% cell {number} is skipped: it has the tag {SKIP}")
        else:
            code_cell = _Cell(number, requests)
            try:
                parts.append(f"# %% cell {number}\n{SHIM}.cell({number})\n{_script_of(code_cell, cell['source'])}")
            except Refused as error:
                errors.append(f"  cell {number}: {error}")
            futures += code_cell.futures
    if errors:
        raise UsageError(
            "\n".join([f"{path} cannot run without Jupyter:", *errors]),
            f"change these cells, or give them the tag {SKIP} to skip them",
        )
    if not number:
        raise UsageError(f"{path} has no code", "name another notebook")
    return Converted(
        _header(path, futures) + "\n\n".join(parts) + f"\n\n{SHIM}.end()\n",
        tuple(requests.requirements),
        tuple(requests.notes),
    )


def script_name(path: str) -> str:
    """Return the name of the script of the notebook at `path`."""
    return PurePosixPath(path).stem + ".py"


def _header(path: str, futures: list[str]) -> str:
    future = f"from __future__ import {', '.join(dict.fromkeys(futures))}\n" if futures else ""
    quoted = repr(path)
    return (
        f"# Made by gpurun from {quoted}; its cells are numbered as after `Restart and run all`.\n"
        f"{future}import gpurun_notebook as {SHIM}\n\n{SHIM}.begin(__file__, {quoted})\n\n"
    )


def _read(text: str, path: str) -> list[Any]:
    """Return the notebook's cells, for every version of the format. Raises UsageError."""
    import importlib.util

    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; gpurun converts {path} with it",
            "pip install nbconvert ipython (with pipx: pipx inject gpurun nbconvert ipython)",
        )
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older notebooks have no cell ids
            notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UsageError(
            f"{path} is not a valid notebook: {str(error) or type(error).__name__}", "save it again in Jupyter"
        ) from error
    metadata = notebook["metadata"]
    language = (metadata.get("language_info") or {}).get("name") or (metadata.get("kernelspec") or {}).get("language")
    if language not in (None, "python"):
        raise UsageError(
            f"{path} is a notebook in {language}; gpurun runs only Python notebooks",
            "submit a script instead: gpurun submit run.sh",
        )
    return list(notebook["cells"])


def _numbered(cells: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the cells with code or text, each with the number of the last code cell so far."""
    number = 0
    for cell in cells:
        if cell["source"].strip() and cell["cell_type"] in ("code", "markdown"):
            number += cell["cell_type"] == "code"
            yield number, cell


def _commented(text: str) -> str:
    lines = text.encode("utf-8", "replace").decode().splitlines()
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _script_of(cell: _Cell, source: str) -> str:
    """Return the cell as Python, with the same lines. Raises Refused."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise Refused("it contains half a character (a lone surrogate), which a file cannot hold") from None
    lines = source.split("\n")
    first = next(number for number, line in enumerate(lines) if line.strip())
    if not lines[first].startswith("%%"):
        return _python_of(cell, source)
    magic = magics.cell_magic(lines[first], "\n".join(lines[first + 1 :]), cell.number, cell.requests)
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
        raise Refused(_syntax_message(error, source)) from None
    at = _offsets(python)
    _replace_magics(cell, tree, at)
    _rename_imports(cell, tree, at)
    _show_last(cell, tree, at, python.encode())
    edited = _edited(python.encode(), cell.edits).decode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(edited, "cell", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Refused(_syntax_message(error, source, uses_await=_uses_top_level_await(edited))) from None
    return edited


def _plain(source: str) -> str:
    """Return the source with IPython's syntax as calls of `get_ipython()`, on the same lines."""
    import difflib

    from nbconvert.filters import ipython2python

    begun = source.lstrip("\n")  # ipython2python drops empty lines at the top and joins commands of several lines
    before, after = begun.split("\n"), ipython2python(begun).rstrip("\n").split("\n")  # type: ignore[no-untyped-call]
    kept = [""] * (len(source) - len(begun))
    for _, start, end, first, last in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        kept += after[first:last] + [""] * (end - start - (last - first))
    return "\n".join(kept).rstrip("\n")


def _syntax_message(error: SyntaxError | ValueError, source: str, *, uses_await: bool = False) -> str:
    line = getattr(error, "lineno", None)
    text = (source.split("\n")[line - 1] if line and line <= source.count("\n") + 1 else "").strip()
    if re.match(r"(pip3?|conda|ls|cd|cat|mkdir|cp|mv|rm)\s", text):
        return f"`{text}` is not Python: write `%{text}`"
    if uses_await:
        return f"line {line}: `{text}` uses await outside a function: use asyncio.run(...) in a script"
    return f"line {line}: `{text}` is not Python: {getattr(error, 'msg', error)}"


def _uses_top_level_await(source: str) -> bool:
    """Return whether `source` is valid Python when top-level await is allowed, as in a cell."""
    try:
        compile(source, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _offsets(text: str) -> Callable[[int, int], int]:
    """Return a function from ast's line (from 1) and column (bytes) to the byte offset in the text."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line.encode()) + 1)
    return lambda line, column: starts[line - 1] + column


def _span(node: ast.expr | ast.stmt, at: Callable[[int, int], int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)


def _calls_of_ipython(tree: ast.AST) -> Iterator[tuple[ast.Call, ast.Attribute]]:
    """Yield the calls `get_ipython().something(...)`, from IPython's own syntax or from an exported script."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            inner = node.func.value
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "get_ipython":
                yield node, node.func


def _replace_magics(cell: _Cell, tree: ast.AST, at: Callable[[int, int], int]) -> None:
    for call, function in _calls_of_ipython(tree):
        words = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if len(words) != len(call.args):
            if function.attr not in ("system", "getoutput"):
                raise Refused(f"get_ipython().{function.attr}(...) with arguments that are known only at run time")
            cell.edits.append((*_span(function, at), f"{SHIM}.{function.attr}"))
            continue
        cell.edits.append((*_span(call, at), magics.line(function.attr, words, cell.number, cell.requests)))


def _rename_imports(cell: _Cell, tree: ast.Module, at: Callable[[int, int], int]) -> None:
    """Move `from __future__` to the top of the script, and replace tqdm's notebook bar by its normal one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        start, end = _span(node, at)
        if node.module == "__future__":
            cell.futures += [alias.name for alias in node.names]
            cell.edits.append((start, end, f"pass  # {', '.join(cell.futures)}: at the top"))
        elif node.module == "tqdm.notebook":
            names = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in node.names)
            cell.edits.append((start, end, f"from tqdm.auto import {names}"))


def _show_last(cell: _Cell, tree: ast.Module, at: Callable[[int, int], int], text: bytes) -> None:
    """Show the last expression of the cell, as Jupyter does unless a `;` follows it."""
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        return
    start, end = _span(last, at)
    if text[end:].lstrip().startswith(b";") or text[start:].startswith(b"get_ipython().system("):
        return
    cell.edits += [(start, start, f"{SHIM}.show("), (end, end, ")")]


def _edited(text: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    parts, copied = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[copied:start], new.encode()]
        copied = end
    return b"".join([*parts, text[copied:]])
