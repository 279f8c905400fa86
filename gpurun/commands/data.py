"""The data folders of a host: list them, remove one. `gpurun/commands/push.py` fills them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.config import hosts
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.agent.schema.files import DataFolder
    from gpurun.config.hosts import HostProfile
    from gpurun.remote.wire import Wire

ANSWER_IN = 60.0  # seconds: the host counts files for 20 of them
REMOVED_IN = 1800.0  # a million small files on a slow disk


@dataclass(frozen=True)
class Folder:
    """A data folder of a host, or a path that only hosts.toml names (`bytes` is None: it is not counted).

    Times are unix seconds. `counted` is false where there are more files than the host had time to count.
    """

    name: str
    path: str
    bytes: int | None = None
    files: int | None = None
    counted: bool = True
    began: float | None = None
    pushed: float | None = None
    used_by: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        """The last push has not ended, or was broken off."""
        return self.began is not None and self.began > (self.pushed or 0)


@dataclass(frozen=True)
class Removed:
    freed: int  # bytes
    left: tuple[str, ...]  # paths that the host could not remove


def ls(wire: Wire, host: HostProfile) -> list[Folder]:
    """Return the host's data folders, and behind them the paths elsewhere that hosts.toml names."""
    answer = wire.ask("data_folders", {}, timeout=ANSWER_IN)
    there = [_folder(told) for told in answer["folders"]]
    paths = {folder.path for folder in there}
    return there + [Folder(name, path) for name, path in host.data.items() if path not in paths]


def _folder(told: DataFolder) -> Folder:
    return Folder(
        told["name"],
        told["path"],
        told["bytes"],
        told["files"],
        told["counted"],
        told["began"],
        told["pushed"],
        tuple(told["used_by"]),
    )


def find(folders: list[Folder], name: str, host: str) -> Folder:
    """Return the folder that may be removed. Raises UsageError when there is none, or a live run uses it."""
    found = next((folder for folder in folders if folder.name == name), None)
    if found is None:
        raise UsageError(f"{host} has no data called {name}", f"gpurun data ls -H {host}")
    if found.bytes is None:
        raise UsageError(
            f"{name} is {found.path}, which gpurun did not make",
            f"to forget it, remove its line under [hosts.{host}.data] in {hosts.path()}",
        )
    if found.used_by:
        runs = " ".join(found.used_by)
        what = f"{name} is used by {', '.join(found.used_by)}, which {'are' if len(found.used_by) > 1 else 'is'} live"
        raise UsageError(what, f"gpurun stop {runs}\nor wait for the end: gpurun wait {runs}")
    return found


def rm(wire: Wire, host: HostProfile, folder: Folder) -> Removed:
    """Remove a data folder from its host, and its name from hosts.toml. Raises HostError when a live run uses it."""
    answer = wire.ask("data_folders", {"remove": folder.name}, timeout=REMOVED_IN, idempotent=False)
    if host.data.get(folder.name) == folder.path:
        kept = {name: path for name, path in host.data.items() if name != folder.name}
        hosts.add(host.name, {"data": kept or None})
    return Removed(answer["freed"], tuple(answer["left"]))
