"""The folder that a run is fetched into: what is there already, and how something new gets its place.

Nothing the host says can write elsewhere: each path is walked name by name, no link followed. A file is put
in its place by one rename, after its bytes are on the disk; a file that is not ours is never replaced.

`.gpurun/` in it is ours: `fetch.json` (what was placed, and as what on the host), `incoming/` (what is on its
way; kept after a broken fetch, so that the next one goes on from there), `lock`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict

from gpurun.agent import vocabulary as words
from gpurun.agent.files import write_atomically
from gpurun.errors import GpurunError
from gpurun.fetch.plan import Item, looks_secret
from gpurun.store.fetched_files import PRIVATE

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord

SCHEMA = 1  # of fetch.json
CUT = ".cut"  # behind the name of a file whose end was never written
PARTIAL = ".gpurun-partial"  # rsync's folder for what broke off, beside each file (gpurun.sync.rsync.pull_argv)
_TEMPORARY = re.compile(rb"\.(.+)\.[A-Za-z0-9]{6}")  # rsync's name for a file on its way
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Host:
    """As the laptop calls it, and as it knows itself."""

    name: str
    id: str


class InTheWay(Exception):
    """Something at the destination keeps a file from its place; `str()` says what."""


def reason(error: InTheWay | OSError) -> str:
    """What keeps a file from its place, in a few words."""
    return str(error) if isinstance(error, InTheWay) else error.strerror or str(error)


@dataclass(frozen=True)
class Placed:
    """Where a file came to, below the destination."""

    item: Item
    at: str
    sha256: str


class PlacedFile(TypedDict):
    """A file that was placed, as `.gpurun/fetch.json` records it."""

    host: list[int]  # the stamp of the host's file
    sha256: str
    at: str  # below the destination
    here: list[int] | None  # size in bytes, mtime in ns and inode of what was placed


@dataclass
class Destination:
    """Use it through `opened`."""

    root: Path
    run: str
    state: dict[str, PlacedFile] = field(default_factory=dict)
    host: Host | None = None  # where that came from; None: nobody said

    @property
    def private(self) -> Path:
        return self.root / PRIVATE

    @property
    def staging(self) -> Path:
        return self.private / "incoming"

    # What is there.

    def is_current(self, item: Item) -> bool:
        """The host's file is the one that was fetched, and what was fetched is still here as it was."""
        placed = (self.state.get(item.to), self.state.get(item.to + CUT))
        return any(known is not None and known["host"] == item.stamp and self._is_here(known) for known in placed)

    def placed_size(self, item: Item) -> int | None:
        """Bytes of the version that was fetched before and is here still, None without one."""
        known = self.state.get(item.to)
        here = known["here"] if known is not None and self._is_here(known) else None
        return here[0] if here is not None else None

    def ignores_case(self) -> bool:
        """Return whether the disk takes `A` and `a` for one name, as macOS does."""
        return (self.private / "FETCH.LOCK").exists()

    def free(self) -> int:
        """Bytes that may still be written here."""
        return shutil.disk_usage(self.root).free

    def staged_bytes(self, items: Iterable[Item] | None = None) -> int:
        """What lies in staging from a transfer that broke off; of all files, or of `items`."""
        if items is None:
            return sum(path.lstat().st_size for path in self.staging.rglob("*") if not path.is_dir())
        places = (self.staging / item.path for item in items)
        return sum(_size(where) for path in places for where in (path, path.parent / PARTIAL / path.name))

    def comes_from(self, name: str, record: RunRecord) -> None:
        """What came from another host, before the run went on from there, is not replaced by files of the same name."""
        host_id = record.get("host_id")
        if host_id is None:
            return
        host = Host(name, host_id)
        if self.host is not None and self.host.id != host.id:
            self.state = {}
        self.host = host

    # How something gets there.

    def place(self, item: Item, sha256: str) -> Placed:
        """Move a verified file from staging to its place. Raises InTheWay, OSError."""
        with self._inside(self.staging, item.path, make=False) as (source, name):
            at = self._spot(item, sha256)
            if looks_secret(item.to):
                _keep_to_the_owner(source, name)
            with self._inside(self.root, at, make=True) as (target, target_name):
                _refuse_folder(target, target_name)
                os.rename(name, target_name, src_dir_fd=source, dst_dir_fd=target)
        self.state[item.to] = {"host": item.stamp, "sha256": sha256, "at": at, "here": self._stamp_at(at)}
        return Placed(item, at, sha256)

    def make_links(self, items: Iterable[Item]) -> dict[Item, str]:
        """Make symbolic links, which the plan has found to stay inside; the reason for each that could not be made.

        Only all of them together show where one leads: a link of the user's may be on its way.
        """
        failed, made = {}, []
        for item in items:
            try:
                if self._make_link(item):
                    made.append(item)
            except (InTheWay, OSError) as error:
                failed[item] = reason(error)
        for item in [item for item in made if not self._leads_inside(item)]:
            with suppress(InTheWay, OSError), self._inside(self.root, item.to, make=False) as (folder, name):
                os.unlink(name, dir_fd=folder)
            failed[item] = "a link that leads out, over another link that is here"
        return failed

    def _leads_inside(self, item: Item) -> bool:
        # Not `Path.resolve`, which raises for links that lead in a circle.
        return Path(os.path.realpath(self.root / item.to)).is_relative_to(os.path.realpath(self.root))

    def _make_link(self, item: Item) -> bool:
        """False when it is there already. Raises InTheWay, OSError."""
        assert item.link is not None
        with self._inside(self.root, item.to, make=True) as (folder, name):
            try:
                there = os.lstat(name, dir_fd=folder)
            except FileNotFoundError:
                os.symlink(os.fsencode(item.link), name, dir_fd=folder)
                return True
            if not stat.S_ISLNK(there.st_mode):
                raise InTheWay("something that is not ours is at its place")
            if os.readlink(name, dir_fd=folder) == os.fsencode(item.link):
                return False
            os.unlink(name, dir_fd=folder)
            os.symlink(os.fsencode(item.link), name, dir_fd=folder)
            return True

    def open_staged(self, path: str) -> int:
        """A descriptor of a regular file in staging. Raises OSError."""
        with self._inside(self.staging, path, make=False) as (folder, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(path)
        return fd

    def discard(self, path: str) -> None:
        """Forget what came of a file, so that it is sent again from its beginning."""
        try:
            with self._inside(self.staging, path, make=False) as (folder, name):
                for where in (name, PARTIAL.encode() + b"/" + name):
                    try:
                        os.unlink(where, dir_fd=folder)
                    except (FileNotFoundError, NotADirectoryError):
                        continue
        except (InTheWay, OSError):
            return  # nothing came

    def save(self) -> None:
        host = None if self.host is None else asdict(self.host)
        text = json.dumps({"schema": SCHEMA, "run": self.run, "host": host, "files": self.state})
        write_atomically(str(self.private / "fetch.json"), text.encode())

    def clear(self) -> None:
        """Everything has its place: nothing is on its way any more."""
        shutil.rmtree(self.staging, ignore_errors=True)

    # Inner.

    def _spot(self, item: Item, sha256: str) -> str:
        """Its own path, or one beside it when a file is there that did not come from this run."""
        known = self.state.get(item.to)
        for at in (known["at"] if known else item.to, *_beside(item.to, self.run)):
            stamp = self._stamp_at(at)
            if stamp is None or (known and known["at"] == at and known["here"] == stamp):
                return at
            if stamp[0] == item.size and self._digest_at(at) == sha256:
                return at
        raise InTheWay("files that did not come from this run are at its place")

    def _is_here(self, known: PlacedFile) -> bool:
        """What was placed is still here, untouched."""
        try:
            return bool(known["here"] == self._stamp_at(known["at"]))
        except (InTheWay, OSError):
            return False

    def _stamp_at(self, at: str) -> list[int] | None:
        """Size, mtime and inode of what is there; None when nothing is. What is no regular file has no equal.

        Raises InTheWay, OSError.
        """
        try:
            with self._inside(self.root, at, make=False) as (folder, name):
                found = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return None
        return [found.st_size, found.st_mtime_ns, found.st_ino] if stat.S_ISREG(found.st_mode) else [-1]

    def _digest_at(self, at: str) -> str | None:
        try:
            with self._inside(self.root, at, make=False) as (folder, name):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        except (InTheWay, OSError):
            return None
        with os.fdopen(fd, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def _inside(self, top: Path, path: str, *, make: bool) -> Iterator[tuple[int, bytes]]:
        """The folder of `path` below `top`, as a descriptor, and its name in there. No link is followed on
        the way.
        """
        *parents, name = os.fsencode(path).split(b"/")
        folder = os.open(top, _DIRECTORY)
        try:
            for part in parents:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=folder)
                inner = _open_folder(part, folder)
                os.close(folder)
                folder = inner
            yield folder, name
        finally:
            os.close(folder)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _open_folder(name: bytes, folder: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=folder)
    except NotADirectoryError as error:  # Linux says this of a link too
        raise InTheWay(f"{os.fsdecode(name)!r} on the way is a link or a file, not a folder") from error


def _keep_to_the_owner(folder: int, name: bytes) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _refuse_folder(folder: int, name: bytes) -> None:
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            raise InTheWay("a folder is at its place")
    except FileNotFoundError:
        return


def _beside(to: str, run: str) -> Iterable[str]:
    """`logs/config.yaml` -> `logs/config.train-7f3k.yaml`."""
    folder, slash, name = to.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return [folder + slash + (f"{stem}.{run}.{suffix}" if dot and stem else f"{name}.{run}")]


@contextmanager
def opened(root: Path, run: str) -> Iterator[Destination]:
    """The destination, alone: a second gpurun that fetches into it is told so. Raises GpurunError."""
    made = Destination(root, run)
    if root.is_symlink() and not root.is_dir():
        raise GpurunError(f"{root} is a link that leads nowhere", "name another folder with -o")
    root = made.root = root.resolve()
    was_there = root.exists()
    lock = None
    while lock is None:  # else the folder was moved away or removed in this moment
        made.staging.mkdir(parents=True, exist_ok=True)
        lock = _lock(made.private)
    with lock:
        with suppress(PermissionError):  # a folder that another user made
            made.private.chmod(0o700)  # what is on its way may be a secret
        made.host, made.state = _read_state(root, run)
        _recover(made.staging)
        yield made
        if not was_there and not made.state and not any(made.staging.glob("*")):
            shutil.rmtree(made.private)  # nothing came
            with suppress(OSError):
                root.rmdir()


def _lock(private: Path) -> IO[bytes] | None:
    """Lock the folder until the returned file is closed; None when it is not there. Raises GpurunError when another has it.

    A lock goes where its folder is moved, so it holds only as long as its file is the one at its place.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context((private / "fetch.lock").open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise GpurunError(
                    "another gpurun fetches into this folder",
                    "wait for it, or name another folder with -o",
                    where=private.parent,
                ) from None
            if not os.path.samestat((private / "fetch.lock").stat(), os.fstat(file.fileno())):
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        stack.pop_all()
        return file


def put_aside(root: Path, run: str, host_id: str, aside: Callable[[Host], Path]) -> tuple[Host, Path] | None:
    """Move the folder away when it holds what came of the run from another host than that of `host_id`.

    Returns that host, and the path that `aside` chose for the folder; None when nothing was moved: there is nothing, the
    path is taken, or another gpurun fetches into the folder, whose files stay where it has them. Raises OSError.
    """
    former = _read_state(root, run)[0]
    if former is None or former.id == host_id:
        return None
    try:
        lock = _lock(root / PRIVATE)
    except GpurunError:
        return None
    if lock is None:
        return None
    with lock:
        former = _read_state(root, run)[0]
        if former is None or former.id == host_id or aside(former).exists():
            return None
        root.rename(aside(former))
        return former, aside(former)


def _read_state(root: Path, run: str) -> tuple[Host | None, dict[str, PlacedFile]]:
    """Raise GpurunError for what a newer gpurun wrote: to write it again would lose what only that one knows."""
    note = root / PRIVATE / "fetch.json"
    try:
        told = json.loads(note.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None, {}
    if not isinstance(told, dict):
        return None, {}
    if told.get("schema", 1) != SCHEMA:
        what = f"a newer gpurun fetched into this folder (its notes are of schema {told['schema']})"
        raise GpurunError(what, f"{words.UPDATE}; or name another folder with -o", where=note)
    if told.get("run") != run:
        return None, {}  # another run was fetched into this folder before: its files are not this run's
    return Host(**told["host"]) if told.get("host") else None, told["files"]


def _recover(staging: Path) -> None:
    """Make a killed rsync's temporary files the beginning of the next transfer, and drop what is no file.

    rsync itself does so only when it ended by TERM; its own names after KILL are never looked at again.
    """
    for path in list(staging.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        match = _TEMPORARY.fullmatch(os.fsencode(path.name))
        if not stat.S_ISREG(mode):
            path.unlink()
        elif match and path.parent.name != PARTIAL:
            kept = path.parent / PARTIAL / os.fsdecode(match[1])
            kept.parent.mkdir(exist_ok=True)
            if kept.exists() and kept.stat().st_size >= path.stat().st_size:
                path.unlink()
            else:
                path.rename(kept)
