"""`gpurun fetch --best` and `--last`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurun.cli import describe, output, training
from gpurun.errors import GpurunError, UsageError

if TYPE_CHECKING:
    from gpurun.fetch import Report
    from gpurun.fetch.checkpoint import Came
    from gpurun.index import RunEntry

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")  # with -o: the file itself, not a folder for it


def fetch_each(
    entries: Sequence[RunEntry],
    which: str,
    to: Path | None,
    folder: Callable[[RunEntry], Path],
    reporting: Callable[[RunEntry], AbstractContextManager[Report]],
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """One checkpoint of each run; prints where it is, and on stderr what it was judged by."""
    if to is not None and _is_file(to) and len(entries) > 1:
        raise UsageError(f"{to} is one file, and {len(entries)} runs were named", "Name a folder with -o.")
    results: list[Came] = []
    code = 0
    for entry in entries:
        try:
            with reporting(entry) as report:
                came = _one(entry, which, to, folder, report, yes=yes)
        except GpurunError as error:
            if len(entries) == 1:
                raise
            output.warn(f"{entry.id}: {error.what}")
            code = error.exit_code
            continue
        output.say(f"{entry.id}: {_judged(came)}")
        _tell_of_better(entry, which, came)
        results.append(came)
    if as_json:
        output.json({"checkpoints": [_as_json(came) for came in results]})
    else:
        for came in results:
            output.out(str(came.file))
    return code


def _one(
    entry: RunEntry, which: str, to: Path | None, folder: Callable[[RunEntry], Path], report: Report, *, yes: bool
) -> Came:
    from gpurun import runs
    from gpurun.fetch import explained
    from gpurun.fetch.checkpoint import fetch_checkpoint, fetch_checkpoint_as

    wire = runs.wire_to(entry.host)
    try:
        if to is not None and _is_file(to):
            return fetch_checkpoint_as(wire, entry.id, which, to, replace=yes, report=report)
        return fetch_checkpoint(wire, entry.id, which, folder(entry), report=report)
    except OSError as error:
        raise explained(error, to or folder(entry)) from error


def _tell_of_better(entry: RunEntry, which: str, came: Came) -> None:
    """A run that went on on another host may have left its best one behind."""
    from gpurun import mirror

    best = mirror.best(entry.id) if which == "best" else None
    if best is not None and best["host"] != entry.host and best["sha256"] != came.entry["sha256"]:
        output.warn(f"the best of all is on {best['host']}, which {entry.id} went on from: {describe.checkpoint(best)}")


def _is_file(to: Path) -> bool:
    return to.suffix in SUFFIXES and not to.is_dir()


def _judged(came: Came) -> str:
    told = came.entry
    parts = [training.metric(told) or "nothing was monitored"]
    parts += [f"{name} {told[name]}" for name in ("epoch", "step") if told.get(name) is not None]
    parts.append(output.size(told["size"]) + (", was here already" if came.unchanged else ""))
    return ", ".join(parts)


def _as_json(came: Came) -> dict[str, Any]:
    keys = ("path", "attempt", "epoch", "step", "monitor", "mode", "value", "size", "sha256", "t")
    told = {key: came.entry.get(key) for key in keys}
    return {"id": came.run, "file": str(came.file), "unchanged": came.unchanged, **told}


def which_of(best: bool, last: bool, *, only: bool, watch: bool, all_runs: bool) -> str | None:
    """`best`, `last`, or None when all is to be fetched. Raises UsageError for what does not go together."""
    if not (best or last):
        return None
    if best and last:
        raise UsageError("--best and --last mean one checkpoint each", "leave one of them out")
    given = {"--only": only, "--watch": watch, "--all": all_runs}
    wrong = next((name for name, is_given in given.items() if is_given), None)
    if wrong is not None:
        chosen = "--best" if best else "--last"
        raise UsageError(f"{chosen} fetches one checkpoint, so {wrong} does not go with it", "leave one of them out")
    return "best" if best else "last"
