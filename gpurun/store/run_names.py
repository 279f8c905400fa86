"""Find the runs that a command means: by an id, a name, the beginning of one, or the newest of a project."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from gpurun.config.project import Project
from gpurun.errors import UNKNOWN_RUN, UsageError
from gpurun.store import run_store
from gpurun.store.run_store import RunEntry

_SHOWN = 8  # how many candidates an error lists


def of_project(
    project_root: str | None, runs: Iterable[RunEntry] | None = None
) -> tuple[list[RunEntry], list[RunEntry]]:
    """The jobs and the services (TensorBoard, Jupyter, shells, checks) of a project, in the order of `runs`.

    `runs`: all that are listed, the newest first, unless given. The one place that decides what a command without RUN means:
    a job. A service is meant only when it is named.
    """
    found = [entry for entry in (run_store.all_runs() if runs is None else runs) if entry.project_root == project_root]
    return [entry for entry in found if not entry.service], [entry for entry in found if entry.service]


def in_a_folder_above(project: Project) -> str:
    """Return where this project's runs may be: `cd /home/ada/vision: 3 runs of vision are known there`; empty for nowhere."""
    by_root: dict[str, list[RunEntry]] = {}
    for entry in run_store.all_runs():
        if entry.project_root and not entry.service:
            by_root.setdefault(entry.project_root, []).append(entry)
    above = next((str(root) for root in project.root.parents if str(root) in by_root), None)
    if above is None:
        return ""
    known = by_root[above]
    there = f"{len(known)} runs of {known[0].project} are" if len(known) > 1 else f"the run {known[0].id} is"
    return f"cd {shlex.quote(above)}: {there} known there (a gpurun.toml in it makes all of it one project)"


def is_live(entry: RunEntry) -> bool:
    """Return whether the run was last seen in no end state, on whatever host."""
    return not entry.ended or bool(entry.twins)


def resolve(word: str | None, project: Project | None = None, *, live: bool = False) -> RunEntry:
    """The run that `word` means: an id, a name, or the beginning of one; None: the project's newest.

    A whole id, or a whole name that only one run has, means that run whatever else begins with it. With `live`,
    a word that may mean several means the only one of them that is live. Raises UsageError for a word that means none or several.
    """
    if word is None:
        return _newest_of(project)
    exact = run_store.find(word)
    if exact is not None:
        return exact
    by_id = run_store.ids_beginning_with(word)
    entries = [entry for entry in map(run_store.find, by_id) if entry] if len(by_id) == 1 else run_store.all_runs()
    return match(word, entries, live=live)


def match(word: str, entries: Sequence[RunEntry], *, live: bool = False) -> RunEntry:
    """The one of `entries` that `word` means by its name or its beginning; see `resolve`. Raises UsageError for none or several."""
    named = [entry for entry in entries if entry.name == word]
    begun = [entry for entry in entries if entry.id.startswith(word) or entry.name.startswith(word)]
    found = named if len(named) == 1 else begun
    alive = [entry for entry in found if is_live(entry)] if live else []
    found = alive if len(alive) == 1 else found
    if len(found) == 1:
        return found[0]
    if found:
        raise _ambiguous(word, found)
    raise _unknown(word, entries)


def _newest_of(project: Project | None) -> RunEntry:
    if project is None:
        raise UsageError("no run was named", "name one; `gpurun ps -a` lists them")
    jobs, services = of_project(str(project.root))
    if not jobs:
        those = f", or a service: {', '.join(one.id for one in services[:_SHOWN])}" if services else ""
        next_step = f"name a run (`gpurun ps -a` lists them){those}; or start one: gpurun submit SCRIPT"
        raise UsageError(
            f"no run of the project {project.name} is known here",
            "\n".join(filter(None, [in_a_folder_above(project), next_step])),
            where=project.root,
            code=UNKNOWN_RUN,
        )
    return jobs[0]


def _ambiguous(word: str, found: list[RunEntry]) -> UsageError:
    lines = [f"  {entry.id}  {entry.state}  {entry.host}  {entry.project}" for entry in found[:_SHOWN]]
    more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return UsageError("\n".join([f"{word!r} may mean any of", *lines, *more]), "type more of the id")


def _unknown(word: str, entries: Sequence[RunEntry]) -> UsageError:
    import difflib

    known = [entry.id for entry in entries] + [entry.name for entry in entries]
    close = list(dict.fromkeys(difflib.get_close_matches(word, known, n=3)))
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    what, next_step = f"no run {word!r} is known here{hint}", "`gpurun ps -a` asks the hosts and lists all runs"
    return UsageError(what, next_step, code=UNKNOWN_RUN)
