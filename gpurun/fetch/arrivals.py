"""What arrives in staging is hashed while it arrives, so that nothing is left to do when the transfer ends.

rsync writes a file from its beginning to its end under a temporary name, then renames it. The bytes that are
there do not change any more, so a thread reads behind rsync, from the file itself, never from the wire.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from gpurun.fetch.destination import Destination, InTheWay
from gpurun.fetch.plan import Item

_BLOCK = 1 << 20
_FLUSH_EVERY = 64 << 20  # bytes; what is on the disk already need not be waited for at the end
_LOOK_EVERY = 0.05  # seconds
_AHEAD = 64  # files that are looked for at a time: rsync sends in its own order, which ours only comes near to
_WORTH_FOLLOWING = 4_000_000  # bytes; smaller files are read when they are there
FLUSH_ALONE = 200  # files; more are flushed faster by one sync of everything


@dataclass(frozen=True)
class Arrived:
    """A file in staging: its content's hash, and which file that was (inode) when it was read."""

    sha256: str
    size: int
    inode: int


@dataclass
class _Following:
    """A file that is still being written, read up to `done`."""

    fd: int
    inode: int
    digest: hashlib._Hash
    done: int = 0
    flushed: int = 0


@dataclass
class Arrivals:
    """Use it in a `with` around the transfer, then ask `result`."""

    destination: Destination
    items: Iterable[Item]
    results: dict[str, Arrived] = field(default_factory=dict)
    _followed: dict[str, _Following] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Arrivals:
        self._flush = len(list(self.items)) <= FLUSH_ALONE
        self._thread = threading.Thread(target=self._watch, name="arrivals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        for followed in self._followed.values():
            os.close(followed.fd)
        self._followed.clear()

    def finish(self) -> dict[str, Arrived]:
        """Call when the transfer is over: the hash of every file that came, by its path on the host. All are
        on the disk.
        """
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        for item in self.items:
            if not self._is_taken(item):
                self._take(item)
        if not self._flush:
            os.sync()
        return self.results

    def _is_taken(self, item: Item) -> bool:
        """Return whether what was hashed is what lies there: a transfer that was repeated may have brought a file once more."""
        taken = self.results.pop(item.path, None)
        if taken is None:
            return False
        try:
            fd = self.destination.open_staged(item.path)
        except (InTheWay, OSError):
            return False
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
        if (found.st_ino, found.st_size) != (taken.inode, taken.size):
            return False
        self.results[item.path] = taken
        return True

    def _watch(self) -> None:
        with suppress(OSError):  # a disk that fails: `finish` meets it again, and tells
            self._follow_all()

    def _follow_all(self) -> None:
        waiting = sorted(self.items, key=_rsync_order)
        while waiting and not self._over.is_set():
            came = {item.path for item in waiting[:_AHEAD] if self._take(item, unfinished=True)}
            waiting = [item for item in waiting if item.path not in came]
            if not came:
                self._over.wait(_LOOK_EVERY)

    def _take(self, item: Item, *, unfinished: bool = False) -> bool:
        """Hash a file that is there; with `unfinished`, read on in one that is still coming. True when it is
        done.
        """
        try:
            fd = self.destination.open_staged(item.path)
        except (InTheWay, OSError):
            if unfinished and item.size >= _WORTH_FOLLOWING:
                self._read_on(item)
            return False
        try:
            found = os.fstat(fd)
            followed = self._followed.pop(item.path, None)
            if followed is None or followed.inode != found.st_ino:
                _close(followed)
                followed = _Following(fd, found.st_ino, hashlib.sha256())
            try:
                self._read(followed, upto=None)
                if self._flush:
                    os.fsync(followed.fd)
            finally:
                if followed.fd != fd:
                    os.close(followed.fd)
            self.results[item.path] = Arrived(followed.digest.hexdigest(), followed.done, found.st_ino)
        finally:
            os.close(fd)
        return True

    def _read_on(self, item: Item) -> None:
        followed = self._followed.get(item.path)
        if followed is None or os.fstat(followed.fd).st_nlink == 0:
            _close(self._followed.pop(item.path, None))
            followed = self._find_temporary(item)
            if followed is None:
                return
            self._followed[item.path] = followed
        self._read(followed, upto=_FLUSH_EVERY)

    def _find_temporary(self, item: Item) -> _Following | None:
        folder, _, name = item.path.rpartition("/")
        pattern = re.compile(rb"\." + re.escape(os.fsencode(name)) + rb"\.[A-Za-z0-9]{6}")
        try:
            names = [os.fsencode(path.name) for path in (self.destination.staging / folder).iterdir()]
        except OSError:
            return None
        for found in filter(pattern.fullmatch, names):
            try:
                fd = self.destination.open_staged(f"{folder}/{os.fsdecode(found)}" if folder else os.fsdecode(found))
            except (InTheWay, OSError):
                continue
            return _Following(fd, os.fstat(fd).st_ino, hashlib.sha256())
        return None

    def _read(self, followed: _Following, *, upto: int | None) -> None:
        """Read what is there, at most `upto` bytes of it."""
        begun = followed.done
        while upto is None or followed.done - begun < upto:
            block = os.pread(followed.fd, _BLOCK, followed.done)
            if not block:
                return
            followed.digest.update(block)
            followed.done += len(block)
            if followed.done - followed.flushed >= _FLUSH_EVERY:
                os.fsync(followed.fd)
                followed.flushed = followed.done


def _close(followed: _Following | None) -> None:
    if followed is not None:
        os.close(followed.fd)


def _rsync_order(item: Item) -> list[tuple[int, bytes]]:
    """In a folder, files come before folders."""
    *folders, name = os.fsencode(item.path).split(b"/")
    return [*((1, folder) for folder in folders), (0, name)]
