"""Write mounts for the engine's command line."""

from __future__ import annotations

import csv
import io


def bind(source: str, target: str, *, readonly: bool = False) -> str:
    """Return one value of --mount, which is a line of CSV: a path may contain a comma or a quote."""
    line = io.StringIO()
    fields = ["type=bind", "source=" + source, "target=" + target] + (["readonly"] if readonly else [])
    csv.writer(line, lineterminator="\n").writerow(fields)  # a newline in a path is quoted only because it ends a line
    return line.getvalue()[:-1]
