"""Explain rsync's exit codes, and check that the laptop's rsync is new enough."""

from __future__ import annotations

import functools
import re
from typing import Protocol

from gpurun import process
from gpurun.errors import ContactLost, GpurunError

MINIMUM = (3, 1, 3)  # the first with --modify-window=-1

CONNECTION, DISK_FULL, PARTIAL, VANISHED = "connection", "disk_full", "partial", "vanished"
NOISY_SHELL, MISSING, TOO_OLD, OTHER = "noisy_shell", "missing", "too_old", "other"

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

_MESSAGES = {
    DISK_FULL: (
        "rsync could not write; the usual reason is a full disk",
        "free space (`gpurun prune --fetched`), then repeat the command; it resumes the transfer",
    ),
    PARTIAL: ("rsync could not transfer every file", "make the files that it names readable, or exclude them"),
    NOISY_SHELL: (
        "the host's shell prints text before rsync starts",
        """this shows the text: ssh HOST true
It comes from a start-up file: ~/.bashrc, ~/.profile, ~/.zshenv, ~/.cshrc, ~/.config/fish/config.fish or ~/.ssh/rc.
Print it only in interactive shells; in ~/.bashrc, put this line before it: [[ $- == *i* ]] || return""",
    ),
    MISSING: (
        "rsync is not installed on the host",
        "install it on the host: apt install rsync (or dnf, apk, conda install rsync)",
    ),
    TOO_OLD: ("rsync on the host is too old", "gpurun needs 3.1.3 or later on both ends"),
    OTHER: ("rsync failed", "the lines above are the output of rsync"),
}


class RsyncError(GpurunError):
    """A transfer failed, and a retry would fail too. `meaning` is one of the values above."""

    def __init__(self, meaning: str, stderr: str, where: str) -> None:
        what, next_step = _MESSAGES[meaning]
        super().__init__(f"{what}\n{stderr}" if stderr else what, next_step, where=where, code=meaning)
        self.meaning = meaning


class Connection(Protocol):
    """The part of gpurun.ssh.openssh.Connection that a transfer needs."""

    def rsh(self) -> str: ...

    @property
    def destination(self) -> str: ...

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None) -> process.Completed: ...


def error_of(connection: Connection, code: int, stderr: str) -> GpurunError:
    """Return the error for rsync's exit code. When the code is ambiguous, ask the host; no text decides."""
    meaning = MEANINGS.get(code, OTHER)
    where = connection.destination
    if code == 12 and _exit_code(connection, "command -v rsync") not in (0, None):
        # On the laptop, rsync before 3.2 ends with 12 when the host has no rsync.
        meaning = MISSING
    if meaning == CONNECTION:
        last = stderr.splitlines()[-1:] or [f"rsync ended with {code}"]
        return ContactLost(
            f"the connection broke off during the transfer: {last[0]}",
            "repeat the command; it resumes the transfer",
            where=where,
        )
    return RsyncError(meaning, stderr, where)


def _exit_code(connection: Connection, command: str) -> int | None:
    """Return the exit code of a command on the host, or None when the host does not answer."""
    try:
        code = connection.run(command, timeout=20).code
    except (GpurunError, process.TimedOut):
        return None
    return None if code == 255 else code


@functools.cache
def check_local() -> str:
    """Return the version of the laptop's rsync. Raises GpurunError when rsync is missing or too old."""
    try:
        printed = process.run(["rsync", "--version"], timeout=20).stdout.decode("utf-8", "replace")
    except process.NotInstalled:
        raise GpurunError(
            "rsync is not installed on this machine", "apt install rsync (macOS: brew install rsync)"
        ) from None
    version = parse_version(printed)
    if version is None or version < MINIMUM:
        name = "openrsync" if version is None else ".".join(map(str, version))
        raise GpurunError(
            f"this machine's rsync is {name}; gpurun needs rsync 3.1.3 or later",
            "macOS: brew install rsync, and open a new terminal. Linux: install your distribution's rsync.",
        )
    return ".".join(map(str, version))


def parse_version(printed: str) -> tuple[int, ...] | None:
    """Return (3, 5, 0) from the output of `rsync --version`; None for openrsync and unknown output."""
    match = re.match(r"rsync\s+version v?(\d+)\.(\d+)(?:\.(\d+))?", printed)
    return tuple(int(part or 0) for part in match.groups()) if match else None
