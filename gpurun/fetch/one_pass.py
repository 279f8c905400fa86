"""Fetch one run once: list, choose, transfer group by group, verify, place."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent.files import sync_folder
from gpurun.errors import OF_THE_DISK
from gpurun.events import Doing, Moved, Report
from gpurun.fetch import arrivals, verify
from gpurun.fetch.background import Background
from gpurun.fetch.destination import CUT, Destination, InTheWay, Placed, reason
from gpurun.fetch.plan import Item, Left, Listing, groups, read_listing, select, without_clashes
from gpurun.fetch.report import Fetched, Wanted, no_room
from gpurun.store import fetched_files, run_questions
from gpurun.sync import rsync
from gpurun.sync.retry import run_with_retries

if TYPE_CHECKING:
    from gpurun.agent.schema.requests import OutputsRequest
    from gpurun.fetch.destination import PlacedFile
    from gpurun.remote.wire import Wire

TRIES = 3  # for a file that changes under our hands
PAUSE = 2.2  # seconds between two tries: a file that was quiet for 2 s is taken to be whole
LISTING_SECONDS = 120.0  # a walk over many files, on a slow disk
OUTSIDE_SECONDS = 1800.0  # the host may have much to copy out of a container
STILL_WRITTEN = "still being written; kept the last whole version"


@dataclass(frozen=True)
class _Transfer:
    """A group of files on its way: rsync brings them while both ends hash."""

    group: list[Item]
    hashes: Background[verify.Hashes]
    arrival: Background[tuple[dict[str, arrivals.Arrived], str]]  # and what rsync complained of


@dataclass
class Pass:
    """One pass over one run."""

    wire: Wire
    destination: Destination
    only: tuple[str, ...]
    report: Report
    at_once: int = 2  # transfers: one's round trips, and the limit of one SSH channel, pass while the other moves
    over: threading.Event = field(default_factory=threading.Event)  # set: what is on its way ends, and is kept
    _moved: dict[int, int] = field(default_factory=dict)  # bytes of each group that has been begun
    _total: int = 0

    def run_through(self) -> Fetched:
        self.report(Doing(f"asking {self.wire.host} what {self.destination.run} wrote"))
        listing = self._list()
        fetched = Fetched(
            self.destination.run, self.destination.root, listing.live, listing.attempt, listing.hook, listing.unknown
        )
        stamps, items = [listing.stamp], list(listing.items)
        wants_outside = self._wants_outside(listing)
        # Where other runs share the connection, not beside the transfer: sshd counts the sessions.
        early = Background(lambda: self._list(outside=True)) if wants_outside and self.at_once > 1 else None
        self._bring(listing, fetched)
        if wants_outside:
            self.report(Doing(f"asking {self.wire.host} what was written outside the workspace"))
            beside = self._list(outside=True) if early is None else early.result()
            self._bring(beside, fetched, outside=True)
            stamps, items = [*stamps, beside.stamp], items + list(beside.items)
        if fetched.whole:
            self.destination.clear()
            if not self.only and None not in stamps:
                fetched.stamp = ".".join(filter(None, stamps))
                _note(self.destination, items, fetched.stamp)
        return fetched

    def _wants_outside(self, listing: Listing) -> bool:
        """A container is searched only when all is fetched, or files in it are asked for: the search may take minutes.

        Once a run has ended, what its container held lies in the run's folder and is found there like all else.
        """
        return listing.container and (
            not self.only or any(glob.lstrip("/").startswith("outside") for glob in self.only)
        )

    def _bring(self, listing: Listing, fetched: Fetched, *, outside: bool = False) -> None:
        """All that `listing` names, as far as it can be had."""
        fetched.left += listing.left
        waiting = self._choose(listing, fetched)
        self._check_room(waiting)
        for attempt in range(TRIES):
            if attempt and listing.live:
                self.report(Doing(f"waiting for {len(waiting)} files that are being written"))
                time.sleep(PAUSE)
                waiting = self._look_again(waiting, outside=outside)
            waiting = self._transfer(listing, fetched, waiting, last=attempt == TRIES - 1)
            if not waiting:
                break
        self._make_links(listing, fetched)
        self.destination.save()

    def _list(self, *, outside: bool = False) -> Listing:
        run = self.destination.run
        request: OutputsRequest = {"run": run, "caches": bool(self.only), "outside": outside}
        timeout = OUTSIDE_SECONDS if outside else LISTING_SECONDS
        answer = run_questions.ask(self.wire, "outputs", request, [run], timeout=timeout)
        self.destination.comes_from(self.wire.host, answer["record"])
        return read_listing(answer)

    def _choose(self, listing: Listing, fetched: Fetched) -> list[Item]:
        """What has to be transferred. Asks when that is much."""
        items = select(listing.items, self.only)
        if not items:
            fetched.unmatched += [item.to for item in listing.items]
        items, clashing = without_clashes(items, ignores_case=self.destination.ignores_case())
        fetched.left += clashing
        files = [item for item in items if item.link is None]
        wanted = [item for item in files if not self.destination.is_current(item)]
        fetched.unchanged += len(files) - len(wanted)
        self.report(Wanted(fetched.run, fetched.to, tuple(wanted)))
        return wanted

    def _check_room(self, wanted: Iterable[Item]) -> None:
        needed = sum(item.size for item in wanted) - self.destination.staged_bytes()
        if needed > self.destination.free():
            raise no_room(self.destination.root, needed)

    def _look_again(self, waiting: list[Item], *, outside: bool) -> list[Item]:
        """The same files as they are now; those that the job has removed are no outputs any more."""
        now = {item.to: item for item in self._list(outside=outside).items if item.link is None}
        return [now[item.to] for item in waiting if item.to in now]

    def _transfer(self, listing: Listing, fetched: Fetched, items: list[Item], *, last: bool) -> list[Item]:
        """Transfer, verify and place; the files that are worth another try. After the `last` they are told."""
        ready = [item for item in items if item.writing is None]
        again = {item: verify.Verdict(False, item.writing) for item in items if item.writing is not None}
        self._moved, self._total = {}, sum(item.size for item in ready)
        on_the_way: deque[_Transfer] = deque()
        try:
            for group in groups(ready):
                on_the_way.append(self._begin(listing.root, group))
                if len(on_the_way) == self.at_once:
                    again.update(self._finish(fetched, on_the_way[0]))
                    on_the_way.popleft()
            while on_the_way:
                again.update(self._finish(fetched, on_the_way[0]))
                on_the_way.popleft()
        except BaseException:  # Ctrl-C too: what is on its way is to be kept
            self.over.set()
            for transfer in on_the_way:
                transfer.arrival.over(rsync.TERMINATION_TIMEOUT)
            raise
        if not last:
            return list(again)
        for item, verdict in again.items():
            self._tell(fetched, item, verdict, live=listing.live)
        return []

    def _begin(self, root: str, group: list[Item]) -> _Transfer:
        number = len(self._moved)
        self._moved[number] = 0
        hashes = verify.ask_early(self.wire, self.destination.run, group)

        def arrive() -> tuple[dict[str, arrivals.Arrived], str]:
            with arrivals.Arrivals(self.destination, group) as watch:
                said = self._pull(root, group, number)
                return watch.finish(), said

        return _Transfer(group, hashes, Background(arrive))

    def _finish(self, fetched: Fetched, transfer: _Transfer) -> dict[Item, verify.Verdict]:
        """What came whole is in its place afterwards; the rest with what speaks against it."""
        group = transfer.group
        came, said = transfer.arrival.result()
        placed = {item.path: self.destination.placed_size(item) for item in group}
        run = self.destination.run
        verdicts = verify.judge_all(self.wire, run, group, came, transfer.hashes.result(), placed)
        again = {}
        before = len(fetched.placed)
        for item in group:
            verdict = verdicts[item.path]
            if verdict.good:
                self._place(fetched, self._spared(fetched, item) if verdict.cut else item, came[item.path])
            elif not verdict.gone:
                self.destination.discard(item.path)
                again[item] = replace(verdict, why=said) if said and item.path not in came else verdict
        _settle(self.destination.root, fetched.placed[before:])
        self.destination.save()
        return again

    def _pull(self, root: str, group: list[Item], number: int) -> str:
        """Bring all that can be had of a group into staging. What rsync complained of."""
        connection = self.wire.connection

        def moved(count: int) -> None:
            self._moved[number] = max(self._moved[number], count)  # rsync counts from 0 after each drop
            self.report(Moved(sum(self._moved.values()), self._total))

        def dropped() -> None:
            self.report(Doing("the connection broke off; going on"))
            moved(self.destination.staged_bytes(group))  # a line that drops often lets rsync report nothing

        try:
            run_with_retries(
                connection,
                rsync.pull_argv(connection, root, self.destination.staging),
                rsync.file_list(os.fsencode(item.path) for item in group),
                lambda seen: moved(seen.bytes),
                dropped=dropped,
                cancelled=self.over,
                accept=(0, 24),  # 24: the job removed files meanwhile
                staged=lambda: self.destination.staged_bytes(group),
            )
        except rsync.RsyncError as error:
            if error.meaning == rsync.DISK_FULL:
                raise no_room(self.destination.root, sum(item.size for item in group)) from error
            if error.meaning != rsync.PARTIAL:
                raise
            return error.what.splitlines()[-1]
        self._moved[number] = sum(item.size for item in group)
        return ""

    def _spared(self, fetched: Fetched, item: Item) -> Item:
        """A file whose end was never written does not replace the whole one that is here."""
        if self.destination.placed_size(item) is None:
            fetched.left.append(Left(item.to, "came as it is: the job ended while it wrote this", lost=False))
            return item
        beside = replace(item, to=item.to + CUT)
        why = f"the job ended while it wrote this: the last whole version stays, and what there is of it is {beside.to}"
        fetched.left.append(Left(item.to, why, lost=False))
        return beside

    def _place(self, fetched: Fetched, item: Item, came: arrivals.Arrived) -> None:
        try:
            placed = self.destination.place(replace(item, size=came.size), came.sha256)
        except (InTheWay, OSError) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            fetched.left.append(
                Left(item.to, reason(error))
            )  # a name too long, a folder that is not ours: no other's failure
        else:
            fetched.placed.append(placed)

    def _tell(self, fetched: Fetched, item: Item, verdict: verify.Verdict, *, live: bool) -> None:
        if live:
            why = STILL_WRITTEN if self.destination.placed_size(item) is not None else f"left for now: {verdict.why}"
            fetched.writing.append(Left(item.to, why))
        else:
            fetched.left.append(Left(item.to, verdict.why))

    def _make_links(self, listing: Listing, fetched: Fetched) -> None:
        links = [item for item in select(listing.items, self.only) if item.link is not None]
        fetched.left += [Left(item.to, why) for item, why in self.destination.make_links(links).items()]


def _settle(root: Path, placed: Sequence[Placed]) -> None:
    """Make the new names last over a power cut."""
    folders = {(root / one.at).parent for one in placed}
    if len(folders) > arrivals.FLUSH_ALONE:
        os.sync()
        return
    for folder in folders:
        sync_folder(str(folder))


def _note(destination: Destination, items: Iterable[Item], stamp: str) -> None:
    """Write down where each of `items` lies now, by which gpurun later sees that nothing of them is missing."""
    files = [_placed(destination.state, item) for item in items if item.link is None]
    fetched_files.note(destination.root, destination.run, stamp, files)


def _placed(state: Mapping[str, PlacedFile], item: Item) -> list[str | int] | None:
    """[path below the destination, size, mtime in ns]; None for what was not placed as the host has it."""
    known = (state.get(item.to), state.get(item.to + CUT))
    found = next((one for one in known if one is not None and one["host"] == item.stamp), None)
    here = found["here"] if found is not None else None
    return None if found is None or here is None else [found["at"], *here[:2]]
