"""Count the files of a run that may exist nowhere else, and make a stamp that changes when they change.

"Fetched" is not a flag: the laptop stores the stamp of the last complete fetch, and before a run is removed, it is
compared with the present stamp. A stamp has two parts, one for the workspace with log and record, one for the files
that were copied out of containers, because a fetch may list them one after the other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Optional

from .. import vocabulary as words
from ..files import read_json
from ..host import locks
from ..outputs import listing, outputs
from ..outputs.container_files import may_hold_more
from ..paths import RunPaths
from ..setup import services
from . import hooks

if TYPE_CHECKING:
    from ..schema.answers import Held
    from ..schema.files import OutputFile
    from ..schema.job import AttemptJob
    from ..schema.run import FetchNote

# gpurun's own record, which grows by a note or an event without any new file of the run.
_OWN = ("job.json", "exit.json", "events.jsonl", "prepare.log", "environment.json")
_SESSIONS = (words.JUPYTER, words.SHELL)  # services in which a person writes files


@dataclass(frozen=True)
class Holdings:
    """Describe what would be lost with the run. `stamp` is None while it may still change, or is unknown."""

    live: bool  # its job, or one of its hooks, may still write
    container: bool  # a container may hold files that were never copied
    files: int = 0
    bytes: int = 0  # of all files that a fetch would list, with gpurun's own record of the run
    stamp: Optional[str] = None
    elsewhere: Optional[float] = None  # unix seconds: when a laptop had fetched everything that is here now

    def as_json(self) -> Held:
        return {
            "live": self.live,
            "container": self.container,
            "files": self.files,
            "bytes": self.bytes,
            "stamp": self.stamp,
            "elsewhere": self.elsewhere,
        }


def measure(run: RunPaths, job: AttemptJob, *, locked: bool = False) -> Holdings:
    """Walk the files of the run. `locked`: the caller holds the run's lock.

    For a service, only files that a person wrote count: a TensorBoard has none, and a live session is walked too.
    """
    kind = services.kind(job)
    container = kind in (None, *_SESSIONS) and may_hold_more(run, job)
    live = not is_final(run, job, locked=locked)
    if live and kind not in _SESSIONS:
        return Holdings(True, container)
    walked, inside = listing.workspace_files(run)
    beside = listing.outside_files(run)
    written = [file for file in (*inside, *beside) if _counts(file, kind)]
    unreadable = sum(bool(entry["lost"]) for entry in walked.skipped) if kind in (None, *_SESSIONS) else 0
    stamp = None if live or container else join(part(inside), part(beside))
    last_fetch: Optional[FetchNote] = read_json(run.fetched)
    fetched = last_fetch if stamp is not None and last_fetch is not None and last_fetch.get("stamp") == stamp else None
    return Holdings(
        live=live,
        container=container,
        files=len(written) + unreadable,
        bytes=sum(file["size"] for file in (*inside, *beside)),
        stamp=stamp,
        elsewhere=fetched.get("t") if fetched is not None else None,
    )


def is_final(run: RunPaths, job: AttemptJob, *, locked: bool = False) -> bool:
    """Return whether gpurun writes nothing more to the run: it has ended, and its hooks are done.

    The hook at the end is started after the end is recorded, by the process that holds the run's lock.
    """
    if not os.path.exists(run.exit):
        return False
    if not locked and job.get(hooks.ON_END) and not locks.is_free(locks.run_lock(run.id)):
        return False
    return not hooks.running(run)


def part(files: Iterable[OutputFile]) -> str:
    """Return the part of a stamp for these files of a listing."""
    return outputs.digest(file for file in files if file["path"] not in _OWN)


def join(workspace: str, outside: str) -> str:
    """Return the stamp of a run from its two parts."""
    return "%s.%s" % (workspace, outside)


def _counts(file: OutputFile, kind: Optional[str]) -> bool:
    """Return whether the run wrote this file or link.

    An empty log does not count, nor the output of a service itself.
    """
    path = file["path"]
    if kind is not None:
        return kind in _SESSIONS and (path is None or str(path).startswith(("workspace/", "outside/")))
    if path is None or not str(path).startswith(("out/", "attempts/", "hooks.log")):
        return path not in _OWN
    name = os.path.basename(str(path))
    return file["size"] > 0 and name not in _OWN


def stamp_of(run: RunPaths, job: AttemptJob, *, locked: bool = False) -> Optional[str]:
    """Return the stamp of the run as it is now, or None."""
    return measure(run, job, locked=locked).stamp
