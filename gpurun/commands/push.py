"""Data into a host's lasting data folder: sent once, used by many runs. Nothing there is ever deleted.

A push that breaks off goes on from what has come when it is repeated, in the middle of a file too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent import error_codes
from gpurun.agent.sizes import size
from gpurun.config import hosts
from gpurun.errors import GpurunError, UsageError
from gpurun.events import Moved, Report
from gpurun.sync import rsync

if TYPE_CHECKING:
    from gpurun.remote.wire import Wire
    from gpurun.sync.rsync import Progress
    from gpurun.sync.rsync_errors import Connection

# In the data folder itself, beside each file that broke off; rsync leaves it out of what it sends.
PARTIAL = ".gpurun-partial"


@dataclass(frozen=True)
class Tree:
    """What lies in the folder that is pushed."""

    files: int
    bytes: int
    outward: tuple[str, ...]  # links that lead out of it, which are not sent


@dataclass(frozen=True)
class Pushed:
    """Where the data is now. `added`: the host's profile names it from now on. `anything_new`: bytes were sent."""

    path: str
    added: bool
    anything_new: bool


def parse_target(target: str) -> tuple[str, str]:
    """`HOST:NAME` -> both. Raises UsageError."""
    host, colon, name = target.rpartition(":")
    if not colon or not host or not name:
        raise UsageError(f"{target!r} is no HOST:NAME", "gpurun push data/imagenet box:imagenet")
    return host, name


def survey(folder: Path) -> Tree:
    """Count what will be sent. Raises UsageError when `folder` is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "name the folder whose content is to be sent")
    root = folder.resolve()
    files, size, outward = 0, 0, []
    for path, found in _walk(root):
        files += 1
        if stat.S_ISLNK(found.st_mode):
            if _leads_out(path, root):
                outward.append(str(path.relative_to(root)))
        else:
            size += found.st_size
    return Tree(files, size, tuple(outward))


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*names, *links]:
            path = Path(folder) / name
            try:
                yield path, path.lstat()
            except FileNotFoundError:
                continue


def _leads_out(path: Path, root: Path) -> bool:
    target = path.readlink()
    reached = os.path.normpath(path.parent / target)
    return target.is_absolute() or not (reached + "/").startswith(f"{root}/")


def push(wire: Wire, host: str, folder: Path, name: str, tree: Tree, *, report: Report) -> Pushed:
    """Bring the content of `folder` into the host's data folder `name`, and let the host's profile name it.

    Raises HostUnreachable (repeat it), RsyncError, GpurunError when the host's disk is too small for it.
    """
    from gpurun.sync.retry import run_with_retries

    there = wire.ask("data", {"name": name})
    if there["empty"] and tree.bytes > there["free"]:
        raise GpurunError(
            f"{size(tree.bytes)} are to go to {host}, and {size(there['free'])} are free there",
            f'free space there, or name a roomier disk in {hosts.path()}:\n  [hosts.{host}]\n  root = "/big/disk"',
            where=f"{host}:{there['path']}",
            code=error_codes.DISK_FULL,
        )

    sent = False

    def progress(seen: Progress) -> None:
        nonlocal sent
        sent = sent or seen.bytes > 0
        report(Moved(min(seen.bytes, tree.bytes), tree.bytes))

    run_with_retries(wire.connection, argv(wire.connection, folder, there["path"]), b"", progress)
    wire.ask("data", {"name": name, "pushed": True})
    return Pushed(there["path"], _remember(host, name, there["path"]), sent)


def argv(connection: Connection, folder: Path, path: str) -> list[str]:
    """rsync of the content of `folder` into the host's folder `path`."""
    return [
        "rsync",
        "-rlt",
        "-s",
        "--safe-links",
        "--no-devices",
        "--no-specials",
        "--chmod=Du+rwx,Fu+rw",
        "--modify-window=-1",
        f"--partial-dir={PARTIAL}",
        *rsync.transport(connection),
        "--",
        f"{folder.resolve()}/",
        f"{connection.destination}:{path}/",
    ]


def _remember(host: str, name: str, path: str) -> bool:
    """Put `NAME = "PATH"` under `[hosts.HOST.data]`, unless the name stands there."""
    known = hosts.read().get(host)
    if name in known.data:
        return False
    hosts.add(host, {"data": {**known.data, name: path}})
    return True
