"""Record the open tunnels of this laptop: one file each, which the tunnel's process locks as long as it lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from gpurun import locked
from gpurun.errors import UsageError

CONNECTING, UP, RECONNECTING, LOGIN_NEEDED = "connecting", "up", "reconnecting", "login needed"
CLOSE_TIMEOUT = 20.0  # seconds: a try to reach a dead host takes its time
MACHINE_ID = Path("/etc/machine-id")
_EARLIER_STATES = {"healing": RECONNECTING, "wants a login": LOGIN_NEEDED}


@dataclass(frozen=True)
class OpenListener:
    """A local port and the run behind it (None: a port of the host itself)."""

    name: str
    url: str
    port: int
    run: str | None


@dataclass(frozen=True)
class Tunnel:
    """One tunnel. `since`: seconds since 1970."""

    id: str
    host: str
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)
    state: str = CONNECTING
    detached: bool = False
    listeners: tuple[OpenListener, ...] = ()


class Entry:
    """The registry file of this process's tunnel."""

    def __init__(self, tunnel: Tunnel) -> None:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        self.tunnel = tunnel
        self._path = folder() / f"{tunnel.id}.json"
        self._file = _locked(self._path)
        self.update()

    def update(self, **changes: object) -> None:
        """Write the changes in place: a renamed file would leave the lock behind."""
        self.tunnel = replace(self.tunnel, **changes)  # type: ignore[arg-type]
        text = json.dumps(asdict(self.tunnel))
        # Without the lock, a reader could see half of the file. A failed write only makes `--list` incomplete.
        with locked.if_it_can(), locked.state():
            self._file.seek(0)
            self._file.truncate()
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        with locked.if_it_can():
            self._path.unlink(missing_ok=True)
        with locked.if_it_can():
            self._file.close()  # which also writes what did not fit on the disk before


def live() -> list[Tunnel]:
    """Return the tunnels whose process lives, oldest first. Remove the files of processes that were killed."""
    try:
        with locked.state():
            tunnels = _live()
    except OSError as error:  # reading works without the lock too
        locked.note_trouble(error)
        tunnels = _live()
    return sorted(tunnels, key=lambda tunnel: tunnel.since)


def _live() -> list[Tunnel]:
    tunnels = []
    for path in folder().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), path.open(encoding="utf-8") as file:
            if _is_free(file):
                path.unlink(missing_ok=True)
                continue
            tunnels.append(_tunnel(json.load(file)))
    return tunnels


def _tunnel(document: dict[str, Any]) -> Tunnel:
    """Return the tunnel of a registry file. An earlier version wrote other words for the same things."""
    listeners = document.pop("doors" if "doors" in document else "listeners")
    state = _EARLIER_STATES.get(document["state"], document["state"])
    return Tunnel(**{**document, "state": state, "listeners": tuple(OpenListener(**each) for each in listeners)})


def resolve(word: str) -> Tunnel:
    """Return the live tunnel of that host, with that id or run, or whose id or run begins with `word`. Raises UsageError."""
    tunnels = live()
    matches = [tunnel for tunnel in tunnels if tunnel.id == word] or [
        tunnel
        for tunnel in tunnels
        if tunnel.id.startswith(word)
        or tunnel.host == word
        or any((listener.run or "").startswith(word) for listener in tunnel.listeners)
    ]
    if len(matches) == 1:
        return matches[0]
    ids = ", ".join(tunnel.id for tunnel in matches)
    raise UsageError(f"{word!r} may mean {ids}" if ids else f"no tunnel {word!r} is open", "gpurun tunnel --list")


def close(tunnel: Tunnel) -> bool:
    """End the tunnel's process and wait for it; return False when it does not end. Its lock proves whose pid it is."""
    path = folder() / f"{tunnel.id}.json"
    with contextlib.suppress(ProcessLookupError):
        os.kill(tunnel.pid, signal.SIGTERM)
    deadline = time.monotonic() + CLOSE_TIMEOUT
    while time.monotonic() < deadline:
        if not path.exists() or all(each.id != tunnel.id for each in live()):
            return True
        time.sleep(0.05)
    return False


def folder() -> Path:
    """Return the folder of the registry files of this machine."""
    import platformdirs

    return platformdirs.user_data_path("gpurun") / "tunnels" / _machine()


def _machine() -> str:
    """Return a name for this machine: workstations may share a home, and a pid of another one must not get our signal.

    A Mac does not share its home.
    """
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
        file.close()  # `live` removed it before it was locked, as the file of a killed process


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
