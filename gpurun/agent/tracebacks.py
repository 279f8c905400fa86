"""Find Python's tracebacks in a job's output. Both floors import this module: a laptop reads a log that was fetched."""

from __future__ import annotations

import re


def traceback_in(text: str) -> str:
    """Return the last traceback in `text`, or "".

    With several processes, torch puts `[rank1]: ` before each line of a rank.
    """
    at = text.rfind("Traceback (most recent call last):")
    if at < 0:
        return ""
    rank = re.search(r"(?:^|\n)(\[rank\d+\]:) $", text[:at])
    lines = text[at:].split("\n")
    if rank:
        lines[1:] = [line[len(rank.group(1)) + 1 :] for line in lines[1:] if line.startswith(rank.group(1))]
    end = next(
        (n for n, line in enumerate(lines[1:], 1) if line and not line.startswith((" ", "\t"))),
        len(lines) - 1,
    )
    return "\n".join(lines[: end + 1])
