"""What rsync's exit codes mean to us and how each is mended, and whether the laptop's rsync will do."""

from __future__ import annotations

import functools
import re
from typing import Protocol

from gpurun import process
from gpurun.errors import ContactLost, GpurunError

MINIMUM = (3, 1, 3)  # the first with --modify-window=-1

CONNECTION, DISK_FULL, PARTIAL, VANISHED = "connection", "disk_full", "partial", "vanished"
NOISY_SHELL, MISSING, TOO_OLD, OTHER = "noisy_shell", "missing", "too_old", "other"

# rsync's exit codes: what each means for us.
MEANINGS = {
    1: TOO_OLD,
    2: NOISY_SHELL,
    4: TOO_OLD,
    10: CONNECTION,
    11: DISK_FULL,
    12: CONNECTION,
    20: CONNECTION,
    23: PARTIAL,
    24: VANISHED,
    30: CONNECTION,
    35: CONNECTION,
    126: MISSING,
    127: MISSING,
    255: CONNECTION,
}

_SAYS = {
    DISK_FULL: (
        "rsync could not write: most often the disk is full",
        "free space there (`gpurun prune --fetched`), then repeat the command; what arrived is kept",
    ),
    PARTIAL: ("rsync could not transfer every file", "make the files that it names readable, or leave them out"),
    NOISY_SHELL: (
        "the host's shell prints something before rsync speaks",
        """to see it: ssh HOST true
It comes from a start-up file: ~/.bashrc, ~/.profile, ~/.zshenv, ~/.cshrc, ~/.config/fish/config.fish or ~/.ssh/rc.
Keep it quiet for commands, in ~/.bashrc by this line before what prints: [[ $- == *i* ]] || return""",
    ),
    MISSING: (
        "there is no rsync on the host",
        "install it there: apt install rsync (or dnf, apk, conda install rsync)",
    ),
    TOO_OLD: ("rsync on the host is too old", "gpurun needs 3.1.3 or later on both ends"),
    OTHER: ("rsync failed", "the lines above are rsync's own"),
}


class RsyncError(GpurunError):
    """A transfer failed for a reason that trying again does not mend. `meaning` is one of the words above."""

    def __init__(self, meaning: str, said: str, where: str) -> None:
        what, next_step = _SAYS[meaning]
        super().__init__(f"{what}\n{said}" if said else what, next_step, where=where, code=meaning)
        self.meaning = meaning


class Connection(Protocol):
    """What of gpurun.ssh.openssh.Connection a transfer needs."""

    def rsh(self) -> str: ...

    @property
    def destination(self) -> str: ...

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None) -> process.Completed: ...


def explain(connection: Connection, code: int, said: str) -> GpurunError:
    """The error for rsync's exit code. What the code leaves open, the host is asked; no text is read for it."""
    meaning = MEANINGS.get(code, OTHER)
    where = connection.destination
    if code == 12 and _ask(connection, "command -v rsync") not in (0, None):
        # An rsync before 3.2 on the laptop says so of a host without rsync.
        meaning = MISSING
    if meaning == CONNECTION:
        last = said.splitlines()[-1:] or [f"rsync ended with {code}"]
        return ContactLost(
            f"the connection broke off while files were sent: {last[0]}",
            "repeat the command: what has arrived is not sent again",
            where=where,
        )
    return RsyncError(meaning, said, where)


def _ask(connection: Connection, command: str) -> int | None:
    """The exit code of a command on the host, None when the host does not answer."""
    try:
        code = connection.run(command, timeout=20).code
    except (GpurunError, process.TimedOut):
        return None
    return None if code == 255 else code


@functools.cache
def check_local() -> str:
    """The version of the laptop's rsync. Raises GpurunError with the repair when there is none that will do."""
    try:
        said = process.run(["rsync", "--version"], timeout=20).stdout.decode("utf-8", "replace")
    except process.NotInstalled:
        raise GpurunError(
            "there is no rsync on this machine", "apt install rsync (macOS: brew install rsync)"
        ) from None
    version = parse_version(said)
    if version is None or version < MINIMUM:
        found = "openrsync" if version is None else ".".join(map(str, version))
        raise GpurunError(
            f"this machine's rsync is {found}, which lacks what gpurun needs (3.1.3 or later)",
            "macOS: brew install rsync, and open a new terminal. Linux: install your distribution's rsync.",
        )
    return ".".join(map(str, version))


def parse_version(said: str) -> tuple[int, ...] | None:
    """(3, 5, 0) from what `rsync --version` says; None for openrsync and what is not understood."""
    match = re.match(r"rsync\s+version v?(\d+)\.(\d+)(?:\.(\d+))?", said)
    return tuple(int(part or 0) for part in match.groups()) if match else None
