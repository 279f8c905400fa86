"""A notebook that lies in a Jupyter session on the host, as `gpurun submit RUN:train.ipynb` names it.

The run is that of what was tried there: the code of the project as it is here now, and over it the notebook and the
code files that were changed or made in the session. It is the rule by which a session itself goes on
(agent/outputs/session_merge.py): what was changed there stays, what was not follows the laptop.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent import manifest
from gpurun.agent import vocabulary as words
from gpurun.agent.manifest import Entry
from gpurun.commands import runs
from gpurun.config.session import Session
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import OutputsAnswer
    from gpurun.job.files import FileList
    from gpurun.ssh.openssh import Connection
    from gpurun.store.run_store import RunEntry

SUFFIX = ".ipynb"
# What counts as code that was changed in a session; the rest is what was computed there.
CODE = (".py", ".sh", ".toml", ".yaml", ".yml", ".cfg", ".ini")
LARGEST = 1_000_000  # bytes of one such file
_WORKSPACE = "workspace/"


def is_meant(target: str, here: Path) -> bool:
    """Return whether `target` reads as RUN:notebook.ipynb; a file of that name comes first."""
    run, colon, path = target.partition(":")
    return bool(run and colon and path.endswith(SUFFIX)) and not (here / target).exists()


def bring(target: str, into: Path) -> Session:
    """Fetch the notebook and the changed code of its session into the folder `into`. Raises UsageError, what the wire raises."""
    word, _, path = target.partition(":")
    entry = runs.resolve(word)
    root = _project_root(entry)
    notebook = _inside(path, entry)
    wire = runs.wire_to(entry.host)
    answer = wire.ask("outputs", {"run": entry.id, "caches": False, "outside": False}, timeout=120)
    changed = _changed(answer)
    files = tuple(dict.fromkeys([notebook, *(path for path in changed if path.endswith(CODE))]))
    _pull(wire.connection, f"{answer['root']}/workspace", files, into)
    if not (into / notebook).is_file():
        there = [path for path in changed if path.endswith(SUFFIX)]
        hint = f"; changed there were {', '.join(there)}" if there else ""
        what = f"there is no notebook {notebook} in the workspace of {entry.id}{hint}"
        raise UsageError(what, f"gpurun shell {entry.id} -- ls", where=entry.host)
    came = tuple(path for path in files if (into / path).is_file())
    return Session(entry.id, entry.host, root, notebook, into, came)


def _project_root(entry: RunEntry) -> Path:
    if entry.service != words.JUPYTER:
        raise UsageError(
            f"{entry.id} is no Jupyter session",
            "gpurun ps lists those of `gpurun tunnel --jupyter`, called jupyter-...",
        )
    root = Path(entry.project_root) if entry.project_root else None
    if root is None or not root.is_dir():
        raise UsageError(
            f"the project {entry.project} of {entry.id} is not on this laptop, and a run has its code",
            "submit where the session was opened",
        )
    return root


def _inside(path: str, entry: RunEntry) -> str:
    """`path` relative to the workspace. Jupyter shows it with a `/` in front."""
    plain = posixpath.normpath(path.lstrip("/"))
    if plain.startswith(".."):
        raise UsageError(f"{path} leads out of the workspace of {entry.id}", "name a notebook as Jupyter shows it")
    return plain


def _changed(answer: OutputsAnswer) -> list[str]:
    """Files of the workspace that are new or changed, small enough for code. A host is not trusted with paths."""
    from gpurun.fetch.plan import read_listing

    return [
        item.path.removeprefix(_WORKSPACE)
        for item in read_listing(answer).items
        if item.link is None and item.path.startswith(_WORKSPACE) and item.size <= LARGEST
    ]


def _pull(connection: Connection, workspace: str, files: tuple[str, ...], into: Path) -> None:
    from gpurun.sync import rsync
    from gpurun.sync.retry import run_with_retries

    names = rsync.file_list(os.fsencode(path) for path in files)
    run_with_retries(connection, rsync.pull_argv(connection, workspace, into), names, lambda seen: None, accept=(0, 24))


def laid_over(files: FileList, session: Session) -> FileList:
    """All that travels: the project's files, and over them the session's."""
    over = {entry.path: entry for entry in _entries(session)}
    merged = {entry.path: entry for entry in files.entries} | over
    left_out = tuple(item for item in files.left_out if os.fsencode(item.path) not in over)
    return replace(files, entries=tuple(sorted(merged.values())), left_out=left_out)


def parts(files: FileList, session: Session) -> list[FileList]:
    """`files`, from `laid_over`, by the folder that they lie in."""
    own = _entries(session)
    theirs = {entry.path for entry in own}
    rest = tuple(entry for entry in files.entries if entry.path not in theirs)
    return [
        part for part in (replace(files, entries=rest), replace(files, root=session.root, entries=own)) if part.count
    ]


def _entries(session: Session) -> tuple[Entry, ...]:
    found = []
    for path in session.files:
        full = os.fsencode(session.root / path)
        entry = manifest.entry_of(os.fsencode(path), os.lstat(full), full)
        assert entry is not None
        found.append(entry)
    return tuple(sorted(found))
