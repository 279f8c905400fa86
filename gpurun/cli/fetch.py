"""`gpurun fetch`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import one_checkpoint, options, output
from gpurun.cli.reporting import Drawn, drawn
from gpurun.errors import GpurunError, HostError, UsageError
from gpurun.store import run_names

if TYPE_CHECKING:
    from gpurun.commands.unfetched import Held
    from gpurun.fetch import Fetched, Wanted
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun fetch
gpurun fetch train-7f3k -o results --only '*.ckpt' --only metrics.csv
gpurun fetch --best -o best.ckpt
gpurun fetch --watch
gpurun fetch --all"""

SHOWN = 10  # names that are listed before "and more"


def fetch(
    run: options.Runs = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Target folder; a file with --best or --last. [fetched/RUN in the project]",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="Fetch only '*.ckpt', 'logs/', '**/metrics.csv'. Can be repeated."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Fetch only the best checkpoint, by the monitored metric.")
    ] = False,
    last: Annotated[bool, typer.Option("--last", help="Fetch only the newest checkpoint.")] = False,
    all_runs: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Fetch all runs of this project that were not fetched yet, and services in which you wrote files.",
        ),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Fetch again and again until the run has ended.")] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> int | None:
    """Bring back what runs wrote: log, metrics and checkpoints first, each file complete or not at all.

    Works while a run is live, resumes after a lost connection, and sends nothing twice. Caches and unchanged files of
    the project stay on the host; --only can name a cache, and searches a live container only for 'outside/...'. The log
    and the records of the run are in _gpurun/, files that were written outside the working directory in outside/. Prints
    the folder.

    --best and --last fetch one checkpoint, whose SHA-256 is compared with the training's ledger, and print its path and
    metric. Exit code 1: there is none.
    """
    which = one_checkpoint.which_of(best, last, only=bool(only), watch=watch, all_runs=all_runs)
    if all_runs and run:
        raise UsageError("--all means all runs of this project, so no run goes with it", "leave out --all, or the runs")
    entries = _unfetched() if all_runs else _named(run)
    if which is not None:
        several = len(entries) > 1
        return one_checkpoint.fetch_each(
            entries,
            which,
            to,
            lambda entry: folder_for(entry, to, several),
            lambda entry: _reporting(entry, yes),
            yes=yes,
            as_json=as_json,
        )
    results = bring(entries, to, only=only or [], watch=watch, yes=yes)
    if as_json:
        output.json({"runs": [_as_json(result) for result in results]})
    else:
        for result in results:
            output.out(str(result.to))
    return None if len(results) == len(entries) and all(_well(result) for result in results) else words.EXIT_FAILED


def bring(
    entries: Sequence[RunEntry],
    to: Path | None = None,
    *,
    only: Sequence[str] = (),
    watch: bool = False,
    yes: bool = False,
) -> list[Fetched]:
    """Fetch these runs one after the other and say how it went on stderr. One that its host lacks stops no other."""
    from gpurun.commands import runs

    if to is not None and to.is_file():
        named = [entry.id for entry in entries]
        repeat = shlex.join(["gpurun", "fetch", *named, *(word for glob in only for word in ("--only", glob))])
        raise UsageError(f"{to} is a file, and what a run wrote is many", f"{repeat} -o DIR")
    results = []
    for entry in entries:
        try:
            fetched = _one(entry, folder_for(entry, to, len(entries) > 1), only, watch, yes)
        except HostError as error:
            if len(entries) == 1:
                raise
            output.warn(f"{entry.id}: {error.what}")
            continue
        if only and not (fetched.placed or fetched.unchanged or fetched.writing):
            unmatched = _no_match(fetched, only)
            if len(entries) == 1:
                raise unmatched
            output.warn(unmatched.what)
            continue
        tell(entry, fetched)
        results.append(fetched)
        for host, done in entry.left_on.items() if not only else ():
            again = done is True and _left_anew(entry, host)
            if done is False or again or (done is None and runs.answers(host)):
                bring_left(entry, host, yes=yes)
    return results


def _left_anew(entry: RunEntry, host: str) -> bool:
    """Return whether what was fetched of an earlier attempt is not here any more, or its host holds more by now."""
    from gpurun.commands import runs, unfetched
    from gpurun.store import run_store

    if not run_store.is_here(entry.id, host):
        return True
    if not runs.answers(host):
        return False
    try:
        seen = unfetched.unfetched_on(runs.wire_to(host, interactive=False), [entry.id])
    except GpurunError:
        return False
    return any(unfetched.why_not_here(one) is not None for one in seen)


def bring_left(entry: RunEntry, host: str, *, yes: bool = False) -> Fetched | None:
    """What the run wrote on a host that it went on from, into a folder of its own; None when that cannot be had now."""
    folder = folder_for(entry)
    try:
        fetched = _one(replace(entry, host=host), one_checkpoint.left_on(folder, host), (), False, yes)
    except GpurunError as error:
        output.warn(f"what {entry.id} left on {host} was not fetched: {error.what}")
        return None
    tell(entry, fetched)
    output.note(f"what it had left on {host} is in {fetched.to}")
    return fetched


def _named(run: list[str] | None) -> list[RunEntry]:
    from gpurun.commands import runs

    return runs.resolve_all(run)


def _unfetched() -> list[RunEntry]:
    from gpurun.commands import unfetched
    from gpurun.config.project import find_project
    from gpurun.store import run_store

    project = find_project()
    jobs, services = run_names.of_project(str(project.root))
    if not jobs and (above := run_names.in_a_folder_above(project)):
        output.note(above)
    sessions = [entry for entry in services if entry.service in (words.JUPYTER, words.SHELL)]
    here = [entry for entry in (*jobs, *sessions) if run_store.is_here(entry.id)]
    told = _held([*here, *(entry for entry in sessions if entry not in here)])
    again = {one.run for one in told if unfetched.why_not_here(one) is not None}
    used = {one.run for one in told if one.files or (one.container and not one.live)}
    found = [entry for entry in jobs if entry not in here or entry.id in again]
    found += [entry for entry in sessions if entry.id in used & again]
    if not found:
        known = f"no run of the project {project.name} is known here"
        output.say("all runs of this project are fetched" if jobs or services else known)
    return found


def _held(entries: Sequence[RunEntry]) -> list[Held]:
    """Ask each host what it holds of these runs. A host that does not answer is left out."""
    from gpurun.commands import runs, unfetched

    found: list[Held] = []
    for host, ids in runs.by_host(entries).items():
        with output.activity(f"asking {host}"):
            try:
                found += unfetched.unfetched_on(runs.wire_to(host), ids)
            except GpurunError as error:
                output.warn(f"{host} could not say whether its runs were written to since: {error.what}")
    return found


def folder_for(entry: RunEntry, to: Path | None = None, several: bool = False) -> Path:
    """Return the folder that a run is fetched to; what came from another host makes room there."""
    from gpurun.config.project import find_project
    from gpurun.fetch import default_folder, ignore_in_git

    if to is not None:
        return to / entry.id if several else to
    folder = default_folder(entry, find_project().root)
    ignore_in_git(folder.parent)
    _put_aside(entry, folder)
    return folder


def _put_aside(entry: RunEntry, folder: Path) -> None:
    """What was fetched before the run went on on another host makes room: the files of both have the same names."""
    from gpurun.fetch.destination import put_aside
    from gpurun.store import run_store

    if entry.host_id is None:
        return
    before = folder.resolve()
    moved = put_aside(folder, entry.id, entry.host_id, lambda host: one_checkpoint.left_on(folder, host.name))
    if moved is not None:
        run_store.note_moved(entry.id, str(before), str(moved[1].resolve()))
        output.note(f"what had come from {moved[0].name} is in {moved[1]} now")


def _one(entry: RunEntry, to: Path, only: Sequence[str], watch: bool, yes: bool) -> Fetched:
    from gpurun import fetch
    from gpurun.commands import runs

    wire = runs.wire_to(entry.host)
    with _reporting(entry, yes) as report:
        try:
            if not watch:
                return fetch.fetch_run(wire, entry.id, to, only=only, report=report)
            for fetched in fetch.watch(wire, entry.id, to, only=only, report=report):
                if fetched.placed and fetched.live:
                    output.say(f"{entry.id}: {_amount(fetched)}")
        except KeyboardInterrupt:
            output.say(f"\nwhat came is whole and stays in {to}; the next fetch goes on from there")
            raise
    return fetched


@contextlib.contextmanager
def _reporting(entry: RunEntry, yes: bool) -> Iterator[Drawn]:
    """Draw a fetch, and ask before it is very much."""
    from gpurun.fetch import Wanted

    with drawn(f"fetching {entry.id}") as report:
        report.on[Wanted] = lambda wanted: _confirm(wanted, report, yes)
        yield report


def _confirm(wanted: Wanted, report: Drawn, yes: bool) -> None:
    from gpurun.fetch import ASK_ABOVE

    report.say("")
    if wanted.bytes <= ASK_ABOVE:
        return
    output.say(f"{wanted.run} has {output.size(wanted.bytes)} to fetch; the largest files:")
    for item in wanted.largest(SHOWN):
        output.say(f"  {output.size(item.size):>9}  {printable(item.to)}")
    otherwise = f"gpurun fetch {wanted.run} -y, or fetch less: --only 'best*.ckpt'"
    output.confirm("Fetch all of it?", yes=yes, otherwise=otherwise)


def tell(entry: RunEntry, fetched: Fetched, count: str = "") -> None:
    """Say how a fetch went; `count` is put behind it."""
    output.say(f"{entry.id}: {_amount(fetched)}{count}")
    for placed in fetched.beside:
        output.warn(
            f"{printable(placed.item.to)} is there already and is not what it wrote on {entry.host}; that is {placed.at}"
        )
    _list("not fetched", [f"{printable(left.path)}: {left.why}" for left in fetched.left])
    _list("for the next fetch", [f"{printable(left.path)}: {left.why}" for left in fetched.writing])
    if fetched.unnoted:
        output.note(f"this machine knows that it was fetched, and {entry.host} could not note it: {fetched.unnoted}")
    if fetched.hook:
        output.note(f"a hook of {entry.id} still runs; `gpurun fetch --watch {entry.id}` waits for its end")
    elif fetched.unknown is not None:
        why = fetched.unknown.get("message") or fetched.unknown.get("problem") or "it cannot be read"
        output.note(f"nobody knows whether {entry.id} goes on: {why}")
    elif fetched.live:
        output.note(f"{entry.id} goes on; `gpurun fetch --watch {entry.id}` follows it to its end")


def _no_match(fetched: Fetched, only: Sequence[str]) -> GpurunError:
    wrote = [printable(name) for name in fetched.unmatched if not name.startswith("_gpurun/")]
    more = f" and {len(wrote) - SHOWN:,} more" if len(wrote) > SHOWN else ""
    there = f"It wrote {', '.join(wrote[:SHOWN])}{more}." if wrote else "It wrote nothing but its log."
    what = f"nothing that {fetched.run} wrote matches {' or '.join(only)}"
    return GpurunError(what, there, exit_code=words.EXIT_NOTHING)


def _amount(fetched: Fetched) -> str:
    if not fetched.placed:
        return "nothing new" if fetched.unchanged else "it wrote nothing"
    here = f", {fetched.unchanged:,} were here already" if fetched.unchanged else ""
    return f"{output.plural(len(fetched.placed), 'file')}, {output.size(fetched.bytes)}{here}"


def _list(heading: str, lines: Sequence[str]) -> None:
    if lines:
        output.warn(f"{heading}:")
        for line in lines[:SHOWN]:
            output.say(f"  {line}")
        if len(lines) > SHOWN:
            output.say(f"  and {len(lines) - SHOWN:,} more")


def printable(name: str) -> str:
    """A file's name as a terminal may show it: no control characters, no bytes that are no text."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
    return shown.encode("utf-8", "backslashreplace").decode()


def _well(fetched: Fetched) -> bool:
    return not any(left.lost for left in fetched.left)


def _as_json(fetched: Fetched) -> dict[str, object]:
    return {
        "id": fetched.run,
        "folder": str(fetched.to),
        "live": fetched.live,
        "whole": fetched.whole,
        "bytes": fetched.bytes,
        "unchanged": fetched.unchanged,
        "files": [{"path": placed.at, "bytes": placed.item.size, "sha256": placed.sha256} for placed in fetched.placed],
        "left": [{"path": left.path, "why": left.why, "lost": left.lost} for left in fetched.left],
        "writing": [{"path": left.path, "why": left.why} for left in fetched.writing],
    }
