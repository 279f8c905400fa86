"""`gpurun compare`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpurun.cli import complete, options, output, training
from gpurun.cli.fetch import printable
from gpurun.errors import UsageError
from gpurun.store.checkpoint_store import is_number

if TYPE_CHECKING:
    from gpurun.commands.compare import Row
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun compare
gpurun compare train-7f3k train-9abc
gpurun compare --diff train-7f3k train-9abc train-2222
gpurun compare train-7f3k train-9abc --csv >runs.csv"""

NARROWEST = 12  # columns of one run on a terminal


def compare(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Two or more runs. [the newest two of this project]",
            autocompletion=complete.known_runs,
            show_default=False,
        ),
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show only what differs.")] = False,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout, one line for each run.")] = False,
) -> None:
    """Compare runs side by side: arguments, code, environment, results and metrics.

    Asks no host: it is what was known at the last contact, of runs that were removed since, too. What differs is marked
    with *.
    """
    from gpurun.commands import runs
    from gpurun.commands.compare import compare

    if as_json and as_csv:
        raise UsageError("--json and --csv are two formats", "leave one of them out")
    entries = runs.resolve_all(run, removed=True) if run else runs.newest(2)[::-1]
    if len(entries) < 2:
        raise UsageError("compare needs two runs", f"gpurun compare {entries[0].id} RUN; gpurun ps -a lists them")
    rows = [row for row in compare(entries) if row.differs or not diff]
    if as_json:
        output.json({"runs": _as_json(entries, rows), "differ": [_key(row) for row in rows if row.differs]})
    elif as_csv:
        output.out(_as_csv(entries, rows).rstrip("\n"))
    else:
        _show(entries, rows)
    _tell_age(entries)


def _show(entries: Sequence[RunEntry], rows: Sequence[Row]) -> None:
    """All runs side by side; on a terminal as many as fit, and the others below them."""
    labels = [_label(row) for row in rows]
    cells = [_cells(row) for row in rows]
    if not sys.stdout.isatty():
        _show_some(entries, rows, labels, cells)
        return
    longest = output.width() // 3
    labels = [output.cut(label, longest) for label in labels]
    beside = output.width() - max(map(output.visible, labels), default=0)
    least = max(NARROWEST, *(len(entry.id) for entry in entries)) + 2
    at_once = min(max(beside // least, 1), len(entries))
    room = max(beside // at_once, least) - 2
    for at in range(0, len(entries), at_once):
        if at:
            output.out("")
        some = slice(at, at + at_once)
        _show_some(entries[some], rows, labels, [[output.cut(cell, room) for cell in line[some]] for line in cells])


def _show_some(
    entries: Sequence[RunEntry], rows: Sequence[Row], labels: Sequence[str], cells: Sequence[Sequence[str]]
) -> None:
    header = ["", *(entry.id for entry in entries)]
    lines: list[list[str]] = []
    for at, row in enumerate(rows):
        if at == 0 or rows[at - 1].section != row.section:
            lines.append([output.styled(row.section, output.BOLD, stream=sys.stdout), *("" for _ in entries)])
        lines.append([labels[at], *cells[at]])
    output.table(header, lines)


def _label(row: Row) -> str:
    return f"{'*' if row.differs else ' '} {printable(row.name)}"


def _cells(row: Row) -> list[str]:
    from gpurun.commands.compare import UNLIKE_FIRST

    if row.name == UNLIKE_FIRST:
        return ["", *("not known" if value is None else printable(value) for value in row.values[1:])]
    return [_cell(value) for value in row.values]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if is_number(value):
        return f"{value:,}" if isinstance(value, int) else training.number(value)
    return printable(str(value))


def _key(row: Row) -> str:
    return f"{row.section}.{row.name}"


def _as_json(entries: Sequence[RunEntry], rows: Sequence[Row]) -> list[dict[str, object]]:
    sections: list[dict[str, dict[str, object]]] = [{} for _ in entries]
    for row in rows:
        for facts, value in zip(sections, row.values, strict=True):
            facts.setdefault(row.section, {})[row.name] = value
    return [{"id": entry.id, "seen": entry.seen, **facts} for entry, facts in zip(entries, sections, strict=True)]


def _as_csv(entries: Sequence[RunEntry], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *(_key(row) for row in rows)])
    for at, entry in enumerate(entries):
        writer.writerow([entry.id, *("" if row.values[at] is None else row.values[at] for row in rows)])
    return text.getvalue()


def _tell_age(entries: Sequence[RunEntry]) -> None:
    """Of what may have changed since, and of what is there no more."""
    from gpurun.commands import removed_runs

    for entry in entries:
        if entry.removed is not None:
            output.note(removed_runs.sentence(entry))
        elif not entry.ended:
            seen = f"when it was last seen, {output.ago(entry.seen)} ago" if entry.seen else "and never seen since"
            output.note(f"{entry.id} was {entry.state} {seen}")
