"""What `status`, `logs`, `path` and `ps --removed` show of runs that were removed from their hosts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output
from gpurun.cli.terminal import harmless_output
from gpurun.errors import HostError, HostUnreachable, UsageError

if TYPE_CHECKING:
    from gpurun.cli.status_facts import ShownStatus
    from gpurun.store.run_store import RunEntry


def instead(entry: RunEntry, error: HostError) -> RunEntry:
    """The entry of a run that has ended, and that its host does not have any more. Raises `error` for any other."""
    if error.code != error_codes.NO_RUN or not entry.ended:
        raise error
    return replace(entry, removed=0.0)


def answer(entry: RunEntry) -> ShownStatus:
    """A host's answer to `status`, as far as it is known here; `removed` says that it is none of a host."""
    from gpurun.commands import removed_runs

    return cast("ShownStatus", {**removed_runs.answer(entry), "removed": removed_runs.sentence(entry)})


def show_log(entry: RunEntry, attempt: int | None, tail: int | None, *, timed: bool, build: bool = False) -> None:
    """Print the log that was fetched; of a run that never started, or with `build`, what preparing printed. Raises
    UsageError for what is not here.
    """
    from gpurun.commands import removed_runs

    gone = removed_runs.sentence(entry)
    if timed:
        raise UsageError(f"{gone}; when each line was printed was not fetched", f"gpurun logs {entry.id}")
    found = removed_runs.printed(entry, attempt, build=build)
    if not found:
        of = "its log" if attempt is None else f"the log of attempt {attempt}"
        raise UsageError(f"{gone}; {of} was not fetched", f"gpurun status {entry.id}")
    output.note(gone)
    _print(entry, found, tail)


def show_log_of_attempt(entry: RunEntry, attempt: int, tail: int | None, *, build: bool = False) -> bool:
    """Print the log of an attempt whose host does not answer, as it was fetched; False when it was not."""
    from gpurun.commands import removed_runs

    found = removed_runs.printed(entry, attempt, build=build)
    if found:
        output.note(f"the log of attempt {attempt} as it was fetched to {found[0].parent}")
        _print(entry, found, tail)
    return bool(found)


def _print(entry: RunEntry, found: Sequence[Path], tail: int | None) -> None:
    from gpurun.commands import removed_runs

    shown = next((file for file in found if file.stat().st_size), None)
    if shown is None:
        output.note(f"{entry.id} printed nothing")
        return
    raw = shown.name == removed_runs.LOG or not sys.stdout.isatty()
    for data in removed_runs.chunks(shown, tail):
        output.out_bytes(data if raw else harmless_output(data))


@contextmanager
def naming_what_came(entry: RunEntry) -> Iterator[None]:
    """Add to the error of a run's host that cannot be reached where its fetched log is."""
    try:
        yield
    except HostUnreachable as error:
        from gpurun.commands import removed_runs

        came = next((file for file in removed_runs.log(entry) if file is not None), None)
        if came is not None:
            error.next_step += f"\nor read what was fetched: {came}"
        raise


def show_folder(entry: RunEntry, *, in_json: bool) -> None:
    """Print the folder that the run was fetched into. Raises UsageError when there is none."""
    from gpurun.commands import removed_runs

    found = removed_runs.folders(entry)
    if not found:
        raise removed_runs.refusal(entry)
    output.note(removed_runs.sentence(entry))
    if in_json:
        output.json({"run": entry.id, "host": None, "path": str(found[0].path)})
        return
    output.out(str(found[0].path))


def show_list(host: str | None, *, in_json: bool) -> None:
    """List the runs that were removed from their hosts, from `host` alone where one is named."""
    from gpurun.store import run_store

    known = [entry for entry in run_store.removed_runs() if host in (None, entry.host)]
    if in_json:
        output.json({"runs": [{**_record(entry), "removed": as_json(entry)} for entry in known]})
    elif known:
        rows = [_row(entry) for entry in known]
        output.table(["RUN", "STATE", "REMOVED", "HOST", "PROJECT", "FILES"], rows, shrink=(5, 4, 3))
    else:
        output.note(f"no run was removed from {host or 'its host'}")


def _record(entry: RunEntry) -> dict[str, object]:
    unknown = {"id": entry.id, "name": entry.name, "project": entry.project, "state": words.UNKNOWN}
    return {**(entry.record or unknown), "host": entry.host}


def _row(entry: RunEntry) -> list[str]:
    state = describe.styled_state(entry.record, sys.stdout) if entry.record else "-"
    ago = f"{output.ago(entry.removed)} ago" if entry.removed else "-"
    return [entry.id, state, ago, entry.host, entry.project, _folder_from_here(entry) or "none"]


def _folder_from_here(entry: RunEntry) -> str:
    from gpurun.commands import removed_runs

    found = removed_runs.folders(entry)
    return removed_runs.short(found[0].path) if found else ""


def _folder(entry: RunEntry) -> str:
    from gpurun.commands import removed_runs

    found = removed_runs.folders(entry)
    return str(found[0].path) if found else ""


def as_json(entry: RunEntry) -> dict[str, object]:
    """When the run was removed (null: nobody knows), from where, and the folder that has its files."""
    return {"at": entry.removed or None, "host": entry.host, "folder": _folder(entry) or None}


def note_more() -> None:
    """After a list of all runs: those that were removed are listed elsewhere."""
    from gpurun.store import run_store

    count = run_store.count_removed()
    if count:
        output.note(f"{output.plural(count, 'run')} removed from a host: gpurun ps --removed")
