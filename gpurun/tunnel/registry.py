"""The tunnels of this laptop: a file each, locked by its process for as long as that lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from gpurun import locked
from gpurun.errors import UsageError

UP, HEALING, LOGIN = "up", "healing", "wants a login"
CLOSES_IN = 20.0  # seconds: a try to reach a dead host takes its time
MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class OpenDoor:
    """A local port and where it leads."""

    name: str
    url: str
    port: int
    run: str | None


@dataclass(frozen=True)
class Tunnel:
    """One tunnel. `since` in seconds since 1970."""

    id: str
    host: str
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)
    state: str = HEALING
    detached: bool = False
    doors: tuple[OpenDoor, ...] = ()


class Entry:
    """The file of a tunnel that this process holds."""

    def __init__(self, tunnel: Tunnel) -> None:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        self.tunnel = tunnel
        self._path = folder() / f"{tunnel.id}.json"
        self._file = _locked(self._path)
        self.tell()

    def tell(self, **changes: object) -> None:
        """Write what has changed. In place: a renamed file would leave the lock behind."""
        self.tunnel = replace(self.tunnel, **changes)  # type: ignore[arg-type]
        text = json.dumps(asdict(self.tunnel))
        # A tunnel that `--list` does not show is better than none. The lock: else who reads it meanwhile sees half of it.
        with locked.if_it_can(), locked.state():
            self._file.seek(0)
            self._file.truncate()
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        with locked.if_it_can():
            self._path.unlink(missing_ok=True)
        with locked.if_it_can():
            self._file.close()  # which writes what found no room before


def live() -> list[Tunnel]:
    """All tunnels whose process lives, the oldest first. What a killed one left behind is removed."""
    try:
        with locked.state():
            found = _live()
    except OSError as error:  # the lock cannot be had, which a look can do without
        locked.note_trouble(error)
        found = _live()
    return sorted(found, key=lambda tunnel: tunnel.since)


def _live() -> list[Tunnel]:
    found = []
    for path in folder().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), path.open(encoding="utf-8") as file:
            if _is_free(file):
                path.unlink(missing_ok=True)
                continue
            told = json.load(file)
            told["doors"] = tuple(OpenDoor(**door) for door in told["doors"])
            found.append(Tunnel(**told))
    return found


def resolve(word: str) -> Tunnel:
    """The live tunnel whose id begins with `word`, or that leads to the host or run of that name. Raises UsageError."""
    tunnels = live()
    found = [one for one in tunnels if one.id == word] or [
        one
        for one in tunnels
        if one.id.startswith(word) or one.host == word or any((door.run or "").startswith(word) for door in one.doors)
    ]
    if len(found) == 1:
        return found[0]
    what = f"{word!r} may mean {', '.join(one.id for one in found)}" if found else f"no tunnel {word!r} is open"
    raise UsageError(what, "gpurun tunnel --list")


def close(tunnel: Tunnel) -> bool:
    """Ask its process to end, and wait for that; False when it stays. The lock proves that the pid is still its own."""
    path = folder() / f"{tunnel.id}.json"
    with contextlib.suppress(ProcessLookupError):
        os.kill(tunnel.pid, signal.SIGTERM)
    deadline = time.monotonic() + CLOSES_IN
    while time.monotonic() < deadline:
        if not path.exists() or all(one.id != tunnel.id for one in live()):
            return True
        time.sleep(0.05)
    return False


def folder() -> Path:
    import platformdirs

    return platformdirs.user_data_path("gpurun") / "tunnels" / _machine()


def _machine() -> str:
    """Workstations may share a home, and its locks: the pids of another are not ours to signal. A Mac's home is its own."""
    try:
        return MACHINE_ID.read_text(encoding="ascii").strip() or "here"
    except OSError:
        return "here"


def _locked(path: Path) -> IO[str]:
    while True:
        file: IO[str] = open(path, "a+", encoding="utf-8", opener=_private)  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # `live` took it for what a killed one left, before it was locked


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
