"""Define what a fetch is asked for, its progress events and its result."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent import error_codes
from gpurun.agent.sizes import size
from gpurun.errors import GpurunError
from gpurun.events import Event
from gpurun.fetch.destination import Placed
from gpurun.fetch.plan import Item, Left

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord


@dataclass(frozen=True)
class Wanted(Event):
    """What is about to be transferred from one run; the callback may raise, and then nothing is."""

    run: str
    to: Path
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.items)

    def largest(self, count: int = 10) -> list[Item]:
        return sorted(self.items, key=lambda item: -item.size)[:count]


@dataclass
class Fetched:
    """What a fetch brought, and what it did not."""

    run: str
    to: Path
    live: bool = False  # the run went on when it was looked at
    attempt: int = 1  # as which it was looked at
    hook: bool = False  # it had ended, and a hook of it still ran
    unknown: RunRecord | None = None  # its record, when its host does not know whether it goes on
    unnoted: str = ""  # why the host could not write down that it was fetched
    stamp: str | None = None  # the host's, for all that it had written
    placed: list[Placed] = field(default_factory=list)
    unchanged: int = 0  # files that were here already
    left: list[Left] = field(default_factory=list)
    writing: list[Left] = field(default_factory=list)  # the job has not finished them
    unmatched: list[str] = field(default_factory=list)  # what it wrote, when that was asked for by globs and none fits

    @property
    def bytes(self) -> int:
        return sum(placed.item.size for placed in self.placed)

    @property
    def whole(self) -> bool:
        """Nothing is missing that the run had written."""
        return not self.writing and not any(left.lost for left in self.left)

    @property
    def beside(self) -> list[Placed]:
        """Files that came under another name, because one was there that is not from this run."""
        return [placed for placed in self.placed if placed.at != placed.item.to]


def no_room(to: Path, needed: int | None) -> GpurunError:
    """The laptop's disk is full, or would be. `needed` in bytes."""
    free = shutil.disk_usage(next(folder for folder in (to, *to.absolute().parents) if folder.is_dir())).free
    wants = "" if needed is None else f", and {size(needed)} are to come"
    return GpurunError(
        f"the disk of this machine is full: {size(free)} are free{wants}",
        "free space, name a folder on another disk with -o, or fetch less with --only.\n"
        "What has come is whole and stays; the next fetch goes on from there.",
        where=to,
        code=error_codes.DISK_FULL,
    )
