"""`gpurun which`."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output, training
from gpurun.cli.fetch import printable
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.store.checkpoint_store import Entry, Kept

    Match = tuple[str, Kept, Entry]

EXAMPLES = """\
gpurun which best.ckpt
gpurun which ~/models/*.ckpt --json"""


def which(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Checkpoints, under any name.")],
    as_json: options.Json = False,
) -> int:
    """Print which run a checkpoint came from, with its epoch, step, metric and commit, on one line.

    For a single file the details follow. A file is recognized by its SHA-256, also when it was renamed or copied, and
    after its run was removed. Asks no host: searches what was known at the last contact. Exit code 1: a file is unknown.
    """
    from gpurun.store import checkpoint_store

    found = []
    for file in files:
        sha256 = _digest(file)
        # Of several with this content the one of the file's own name: `last.ckpt` may be a copy of the best.
        matches = sorted(checkpoint_store.find(sha256), key=lambda match: Path(match[2]["path"]).name != file.name)
        found.append((file, sha256, matches))
    if as_json:
        output.json({"files": [_as_json(file, sha256, matches) for file, sha256, matches in found]})
    else:
        _show(found)
    return 0 if all(matches for _, _, matches in found) else words.EXIT_NOTHING


def _digest(file: Path) -> str:
    """Raises UsageError for what is no file that can be read."""
    if file.is_dir():
        raise UsageError(f"{file} is a folder", "name the checkpoint's file")
    try:
        with output.activity(f"reading {file}"), file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}", "name a checkpoint's file") from error


def _show(found: list[tuple[Path, str, list[Match]]]) -> None:
    for file, sha256, matches in found:
        if not matches:
            output.warn(f"{file}: no run that is known here has saved it (SHA-256 {sha256})")
            continue
        output.out(_sentence(file, matches[0]))
        if len(found) == 1:
            for line in _details(sha256, matches):
                output.out(line)
    if not all(matches for _, _, matches in found):
        output.next_step("gpurun ps -a", "asks the hosts for what their runs have saved; then look again")


def _sentence(file: Path, match: Match) -> str:
    """`x.ckpt is best.ckpt of train-7f3k, epoch 3, step 120, val_loss 0.25 (min), commit c0ffee1234`."""
    run, kept, entry = match
    title = output.styled(printable(str(file)), output.BOLD, stream=sys.stdout)
    git = kept.origin.get("git")
    commit = git["commit"] if git else None
    parts = [*_place(entry), training.metric(entry), f"commit {commit[:10]}" if commit else ""]
    return ", ".join([f"{title} is {printable(entry['path'])} of {run}", *filter(None, parts)])


def _details(sha256: str, matches: list[Match]) -> list[str]:
    run, kept, entry = matches[0]
    also = [f"{printable(other['path'])} of {name}" for name, _, other in matches[1:]]
    rows = [
        ("run", _run(run, kept, entry)),
        ("saved", _saved(entry)),
        ("metric", _metric(entry)),
        ("code", describe.code(kept.origin.get("project"), kept.origin.get("git"))),
        ("command", shlex.join(kept.origin.get("command") or [])),
        ("also", ", ".join(also)),
        ("sha256", sha256),
        ("removed", _removed(run)),
    ]
    return [output.labelled(name, text, 10, output.DIM, lead="  ") for name, text in rows if text]


def _run(run: str, kept: Kept, entry: Entry) -> str:
    from gpurun.store import run_store

    known = run_store.find(run) or run_store.find_removed(run)
    state = "removed since" if known is None else describe.state(known.record) if known.record else known.state
    attempt = f", attempt {entry['attempt']}" if entry["attempt"] > 1 else ""
    return f"{run}{attempt} on {entry['host']}, {state}"


def _removed(run: str) -> str:
    from gpurun.commands import removed_runs
    from gpurun.store import run_store

    gone = run_store.find_removed(run) if run_store.find(run) is None else None
    return "" if gone is None else removed_runs.sentence(gone)


def _place(entry: Entry) -> list[str]:
    return [f"{name} {entry[name]:g}" for name in ("epoch", "step") if name in entry]


def _saved(entry: Entry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["t"])) if "t" in entry else ""
    return ", ".join(filter(None, [when, *_place(entry), output.size(entry["size"])]))


def _metric(entry: Entry) -> str:
    return (training.metric(entry) or "nothing was monitored") + (", the best until then" if entry["best"] else "")


def _as_json(file: Path, sha256: str, matches: list[Match]) -> dict[str, object]:
    told = [{"run": run, **kept.origin, "checkpoint": entry} for run, kept, entry in matches]
    return {"file": str(file), "sha256": sha256, "found": told}
