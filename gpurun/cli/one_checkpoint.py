"""`gpurun fetch --best` and `--last`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent import error_codes
from gpurun.cli import describe, output, training
from gpurun.errors import GpurunError, HostError, HostUnreachable, UsageError
from gpurun.events import Doing, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpurun.fetch.checkpoint import Came
    from gpurun.store.checkpoint_store import Entry
    from gpurun.store.run_store import RunEntry

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
        raise UsageError(f"{to} is one file, and {len(entries)} runs were named", "name a folder with -o")
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
        results.append(came)
        if to is not None and came.file == to:
            _tell_that_it_travels(to)
    if as_json:
        output.json({"checkpoints": [_as_json(came) for came in results]})
    else:
        for came in results:
            output.out(str(came.file))
    return code


def _one(
    entry: RunEntry, which: str, to: Path | None, folder: Callable[[RunEntry], Path], report: Report, *, yes: bool
) -> Came:
    from gpurun.fetch import explained
    from gpurun.fetch.checkpoint import BEST

    at = folder(entry)
    try:
        if which == BEST and _was_elsewhere(entry):
            return _best_of_all(entry, to, at, report, yes=yes)
        return _fetched(entry, entry.host, which, to, at, report, yes=yes)
    except OSError as error:
        raise explained(error, to or at) from error


def _was_elsewhere(entry: RunEntry) -> bool:
    """Return whether a host other than the run's present one has checkpoints of the run."""
    from gpurun.store import checkpoint_store

    return {told["host"] for told in checkpoint_store.there(entry.id)} - {entry.host} != set()


def _best_of_all(entry: RunEntry, to: Path | None, at: Path, report: Report, *, yes: bool) -> Came:
    from gpurun.commands import runs
    from gpurun.fetch.checkpoint import BEST
    from gpurun.store import checkpoint_store

    runs.status(entry)  # what was saved since we last asked
    tried: set[str] = set()
    while (best := checkpoint_store.best(entry.id, at=entry.host)) is not None and best["sha256"] not in tried:
        tried.add(best["sha256"])
        try:
            return _from_its_host(entry, best, to, at, report, yes=yes)
        except GpurunError as error:
            if error.code != error_codes.NO_CHECKPOINT:
                raise
            # Removed since its host was last asked, which has told now what it has: the next best.
    return _fetched(entry, entry.host, BEST, to, at, report, yes=yes)


def _from_its_host(entry: RunEntry, best: Entry, to: Path | None, at: Path, report: Report, *, yes: bool) -> Came:
    """The best one, from where it lies or from what was fetched; without both the best of the host that has the run now."""
    from gpurun.fetch.checkpoint import BEST

    if best["host"] == entry.host:
        return _fetched(entry, entry.host, best["sha256"], to, at, report, yes=yes)
    report(Doing(f"the best one is on {best['host']}, which {entry.id} went on from"))
    beside = left_on(at, best["host"])
    try:
        return _fetched(entry, best["host"], best["sha256"], to, beside, report, yes=yes)
    except (HostUnreachable, HostError) as error:
        came = _here(entry, best, (at, beside))
        if came is None:
            output.warn(f"the best of all, {describe.checkpoint(best)}, is on {best['host']}: {error.what}")
            came = _fetched(entry, entry.host, BEST, to, at, report, yes=yes)
        return came


def _fetched(
    entry: RunEntry, host: str, which: str, to: Path | None, folder: Path, report: Report, *, yes: bool
) -> Came:
    from gpurun.commands import runs
    from gpurun.fetch.checkpoint import fetch_checkpoint, fetch_checkpoint_as

    wire = runs.wire_to(host)
    if to is not None and _is_file(to):
        return fetch_checkpoint_as(wire, entry.id, which, to, replace=yes, report=report)
    return fetch_checkpoint(wire, entry.id, which, folder, report=report)


def _here(entry: RunEntry, best: Entry, folders: Sequence[Path]) -> Came | None:
    """The best one, if it was fetched earlier from a host that cannot give it now."""
    from gpurun.fetch.checkpoint import Came, fetched_in

    for folder in folders:
        file = fetched_in(folder, best)
        if file is not None:
            return Came(entry.id, file, best, unchanged=True)
    return None


def left_on(folder: Path, host: str) -> Path:
    """The folder for what a run left on a host that it went on from: its files may have the names of later ones."""
    return folder.with_name(f"{folder.name}-on-{host}")


def _tell_that_it_travels(file: Path) -> None:
    """A file that was named is its owner's, who may have it for the next job, or may not think of it any more."""
    from gpurun.commands.submit import list_code
    from gpurun.config.load import load

    try:
        loaded = load({}, None, file.absolute().parent, need_host=False, need_script=False)
    except GpurunError:
        return  # the next submit says what is wrong with the configuration
    at = os.path.relpath(file.absolute(), loaded.project.root)
    if loaded.project.marker != "folder" and list_code(loaded).has(at):
        output.note(
            f"it lies in the project, so the next submit sends it too; a line `/{at}` in .gpurunignore keeps it here"
        )


def _is_file(to: Path) -> bool:
    return to.suffix in SUFFIXES and not to.is_dir()


def _judged(came: Came) -> str:
    told: Mapping[str, object] = came.entry
    parts = [training.metric(told) or "nothing was monitored"]
    parts += [f"{name} {told[name]}" for name in ("epoch", "step") if told.get(name) is not None]
    parts.append(output.size(came.entry["size"] or 0) + (", was here already" if came.unchanged else ""))
    return ", ".join(parts)


def _as_json(came: Came) -> dict[str, object]:
    keys = ("path", "attempt", "epoch", "step", "monitor", "mode", "value", "size", "sha256", "t")
    entry: Mapping[str, object] = came.entry
    told = {key: entry.get(key) for key in keys}
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
