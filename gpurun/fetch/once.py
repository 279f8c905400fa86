"""One pass over one run: list, choose, transfer group by group, verify, place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun import rsync
from gpurun.agent.files import sync_folder
from gpurun.errors import ContactLost
from gpurun.fetch import arrivals, verify
from gpurun.fetch.destination import Destination, InTheWay, Placed
from gpurun.fetch.plan import Item, Left, Listing, groups, read_listing, select, without_clashes
from gpurun.fetch.report import Fetched, Report, Wanted, no_room

if TYPE_CHECKING:
    from gpurun.wire import Wire

TRIES = 3  # for a file that changes under our hands
PAUSE = 2.2  # seconds between two tries: a file that was quiet for 2 s is taken to be whole
LISTING_SECONDS = 900.0  # the host may have to copy files out of a container first
STILL_WRITTEN = "still being written; kept the last whole version"


@dataclass
class Pass:
    """One pass over one run."""

    wire: Wire
    destination: Destination
    only: tuple[str, ...]
    report: Report
    done: int = 0  # bytes of finished transfers
    total: int = 0

    def run_through(self) -> Fetched:
        self.report.say(f"asking {self.wire.host} what {self.destination.run} wrote")
        listing = self._list()
        fetched = Fetched(self.destination.run, self.destination.root, listing.live, left=list(listing.left))
        waiting = self._choose(listing, fetched)
        self._check_room(waiting)
        for attempt in range(TRIES):
            if attempt and listing.live:
                self.report.say(f"waiting for {len(waiting)} files that are being written")
                self.report.sleep(PAUSE)
                waiting = self._look_again(waiting)
            waiting = self._transfer(listing, fetched, waiting, last=attempt == TRIES - 1)
            if not waiting:
                break
        self._make_links(listing, fetched)
        self.destination.save()
        if not fetched.writing and not fetched.left:
            self.destination.clear()
        return fetched

    def _list(self) -> Listing:
        request = {"run": self.destination.run, "caches": bool(self.only)}
        return read_listing(self.wire.ask("outputs", request, timeout=LISTING_SECONDS))

    def _choose(self, listing: Listing, fetched: Fetched) -> list[Item]:
        """What has to be transferred. Asks when that is much."""
        items = select(listing.items, self.only)
        items, clashing = without_clashes(items, ignores_case=self.destination.ignores_case())
        fetched.left += clashing
        files = [item for item in items if item.link is None]
        wanted = [item for item in files if not self.destination.is_current(item)]
        fetched.unchanged = len(files) - len(wanted)
        self.report.confirm(Wanted(fetched.run, fetched.to, tuple(wanted)))
        return wanted

    def _check_room(self, wanted: Iterable[Item]) -> None:
        needed = sum(item.size for item in wanted) - self.destination.staged_bytes()
        if needed > self.destination.free():
            raise no_room(self.destination.root, needed)

    def _look_again(self, waiting: list[Item]) -> list[Item]:
        """The same files as they are now; those that the job has removed are no outputs any more."""
        now = {item.to: item for item in self._list().items if item.link is None}
        return [now[item.to] for item in waiting if item.to in now]

    def _transfer(self, listing: Listing, fetched: Fetched, items: list[Item], *, last: bool) -> list[Item]:
        """Transfer, verify and place; the files that are worth another try. After the `last` they are told."""
        ready = [item for item in items if item.writing is None]
        again = {item: verify.Verdict(False, item.writing) for item in items if item.writing is not None}
        self.done, self.total = 0, sum(item.size for item in ready)
        for group in groups(ready):
            again.update(self._transfer_group(listing, fetched, group))
            self.destination.save()
        if not last:
            return list(again)
        for item, verdict in again.items():
            self._tell(fetched, item, verdict, live=listing.live)
        return []

    def _transfer_group(self, listing: Listing, fetched: Fetched, group: list[Item]) -> dict[Item, verify.Verdict]:
        """One rsync, both ends hashing meanwhile. What came whole is in its place afterwards."""
        run = self.destination.run
        questions = verify.Questions(self.wire, run, group)
        with arrivals.Arrivals(self.destination, group) as watch:
            said = self._pull(listing.root, group)
            came = watch.finish()
        placed = {item.path: self.destination.placed_size(item) for item in group}
        verdicts = verify.judge_all(self.wire, run, group, came, questions.answers(), placed)
        self.done += sum(item.size for item in group)
        again = {}
        for item in group:
            verdict = verdicts[item.path]
            if verdict.good:
                self._place(fetched, item, came[item.path])
            elif not verdict.gone:
                self.destination.discard(item.path)
                again[item] = replace(verdict, why=said) if said and item.path not in came else verdict
        _settle(self.destination.root, fetched.placed[-len(group) :])
        return again

    def _pull(self, root: str, group: list[Item]) -> str:
        """Run rsync until all has come or nothing comes any more. What it complained of."""
        names = [os.fsencode(item.path) for item in group]
        moved = [0]

        def progress(seen: rsync.Progress) -> None:
            moved[0] = max(moved[0], seen.bytes)
            self.report.progress(self.done + seen.bytes, self.total)

        while True:
            moved[0] = 0
            try:
                rsync.pull(self.wire.connection, root, names, self.destination.staging, progress=progress)
                return ""
            except ContactLost:
                if not moved[0]:
                    raise
                self.report.say("the connection broke off; going on")
            except rsync.RsyncError as error:
                if error.meaning == rsync.DISK_FULL:
                    raise no_room(self.destination.root, sum(item.size for item in group)) from error
                if error.meaning != rsync.PARTIAL:
                    raise
                return error.what.splitlines()[-1]

    def _place(self, fetched: Fetched, item: Item, came: arrivals.Arrived) -> None:
        try:
            placed = self.destination.place(replace(item, size=came.size), came.sha256)
        except (InTheWay, NotADirectoryError, IsADirectoryError) as error:
            fetched.left.append(Left(item.to, str(error)))
        else:
            fetched.placed.append(placed)

    def _tell(self, fetched: Fetched, item: Item, verdict: verify.Verdict, *, live: bool) -> None:
        if live:
            why = STILL_WRITTEN if self.destination.placed_size(item) is not None else f"left for now: {verdict.why}"
            fetched.writing.append(Left(item.to, why))
        else:
            fetched.left.append(Left(item.to, verdict.why))

    def _make_links(self, listing: Listing, fetched: Fetched) -> None:
        for item in select(listing.items, self.only):
            if item.link is not None:
                try:
                    self.destination.make_link(item)
                except (InTheWay, OSError) as error:
                    fetched.left.append(Left(item.to, str(error)))


def _settle(root: Path, placed: Sequence[Placed]) -> None:
    """Make the new names last over a power cut."""
    folders = {(root / one.at).parent for one in placed}
    if len(folders) > arrivals.FLUSH_ALONE:
        os.sync()
        return
    for folder in folders:
        sync_folder(str(folder))
