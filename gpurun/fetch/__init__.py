"""Bringing back what a run wrote: list, transfer, compare with the host's hashes, put into place by rename.

What is in its place is always a whole version. A fetch that breaks off goes on from what has come, and repeating one
that went well sends nothing.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun import disk
from gpurun.errors import OF_THE_DISK, ContactLost, GpurunError, HostError, HostUnreachable
from gpurun.events import Doing, Report, ignore
from gpurun.fetch.destination import opened
from gpurun.fetch.report import Fetched, Wanted, no_room
from gpurun.remote import records
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.requests import FetchedRequest
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

__all__ = [
    "ASK_ABOVE",
    "Fetched",
    "Wanted",
    "default_folder",
    "explained",
    "fetch_run",
    "ignore_in_git",
    "watch",
]

HOOK_PAUSE = 2.0  # seconds between two looks at a run that has ended, and whose hook works
ASK_ABOVE = 2_000_000_000  # bytes; more is fetched only when somebody says so


def default_folder(entry: RunEntry, here: Path) -> Path:
    """`fetched/<run-id>` below the run's own project, or below `here` when that project is not on this
    machine.
    """
    root = Path(entry.project_root) if entry.project_root else here
    return (root if root.is_dir() else here) / "fetched" / entry.id


def ignore_in_git(folder: Path) -> None:
    """Keep the folder of all fetched runs out of the project's git."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / ".gitignore").open("x") as file:
            file.write("*\n")
    except FileExistsError:
        return


def fetch_run(
    wire: Wire,
    run: str,
    to: Path,
    *,
    only: Sequence[str] = (),
    report: Report = ignore,
    mark: bool = True,
    at_once: int = 2,
    over: threading.Event | None = None,
) -> Fetched:
    """Bring what `run` wrote into the folder `to`, which is made, with `at_once` transfers side by side, until `over` is set.

    With `only`, what these globs name, caches too. Files that the job is writing are tried again for a few
    seconds, then told in `writing`. Raises HostUnreachable (repeat it: what came is kept), GpurunError when
    the disk is full or another gpurun fetches into the same folder, RsyncError, and what `report`
    raises at `Wanted`.
    """
    from gpurun.fetch.one_pass import Pass

    try:
        with opened(to, run) as destination:
            fetched = Pass(wire, destination, tuple(only), report, at_once, over or threading.Event()).run_through()
    except OSError as error:
        raise explained(error, to) from error
    if mark and not fetched.live:
        _mark(wire, fetched, bool(only))
    return fetched


def _mark(wire: Wire, fetched: Fetched, some: bool) -> None:
    """Tell host and index, for `rm` and `prune`, that nothing is lost with the run.

    The index is what counts: a host whose disk is full, or which is gone in this moment, takes away nothing of what came.
    """
    whole = fetched.whole and not some
    what = "all" if whole else "some"
    request: FetchedRequest = {"run": fetched.run, "what": what, "attempt": fetched.attempt, "stamp": fetched.stamp}
    try:
        counts = bool(wire.ask("fetched", request, timeout=90)["counts"])
    except (HostError, HostUnreachable) as error:
        fetched.unnoted = error.what
        counts = whole and fetched.stamp is not None
    if counts:
        run_store.mark_fetched(fetched.run, str(fetched.to), host=wire.host, stamp=fetched.stamp)


def explained(error: OSError, to: Path) -> GpurunError:
    """What became of the files, when this machine could not write them."""
    if error.errno == errno.ENOSPC:
        return no_room(to, None)
    known = disk.explain(error)
    if known is not None and error.errno in OF_THE_DISK:
        return GpurunError(known.what, f"{known.next_step}, or name another folder with -o", where=to, code=known.code)
    return GpurunError(
        f"the files could not be written: {error.strerror or error}", "name another folder with -o", where=to
    )


def watch(
    wire: Wire, run: str, to: Path, *, only: Sequence[str] = (), report: Report, every: float = 30.0
) -> Iterator[Fetched]:
    """Fetch again and again until the run has ended; each pass's result. Lost contact ends nothing.

    Raises as `fetch_run` does, and GpurunError for a run that is unknown to its host, once what is there has come.
    """
    while True:
        try:
            fetched = fetch_run(wire, run, to, only=only, report=report)
            yield fetched
            if not fetched.live:
                return
            if fetched.hook:
                report(Doing(f"waiting for a hook of {run} to end"))
                time.sleep(HOOK_PAUSE)
                continue
            if fetched.unknown is not None:
                records.refuse_unknown(fetched.unknown, wire.host)
            report(Doing(f"{run} goes on; the next look comes in {every:.0f} s, or when it ends"))
            wire.ask("wait", {"runs": [run], "seconds": every}, timeout=every + 15)
        except ContactLost as error:
            report(Doing(f"{error.what}; trying again"))
            time.sleep(min(every, 5.0))
