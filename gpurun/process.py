"""The one place that starts programs on the laptop. `--debug` shows each argv before it runs."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT
Process = subprocess.Popen[bytes]

_log = logging.getLogger("gpurun")


class TimedOut(Exception):
    """A program did not end in time; it has been killed."""


class NotInstalled(Exception):
    """The program is not on this machine. `str()` is its name."""


@dataclass(frozen=True)
class Completed:
    """How a program ended. `code` is negative when a signal ended it."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def said(self) -> str:
        """The last line that it wrote to stderr; for people, never to decide by."""
        return last_line(self.stderr)


def last_line(said: bytes) -> str:
    """The last line that is not empty."""
    lines = said.decode("utf-8", "replace").replace("\r", "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def start(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] | None = DEVNULL,
    stdout: int | IO[bytes] | None = PIPE,
    stderr: int | IO[bytes] | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a program and return at once. `None` inherits the laptop's own descriptor. Raises NotInstalled.

    It stays in our process group: only so can ssh ask for a password on the terminal.
    """
    _log.debug("run: %s", shlex.join(argv))
    try:
        return subprocess.Popen(list(argv), stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env)
    except FileNotFoundError as error:
        if cwd is not None and not Path(cwd).is_dir():
            raise
        raise NotInstalled(argv[0]) from error


def scratch() -> IO[bytes]:
    """Open a file without a name for what a program is to read or says: in memory where the system can, for disks are full."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):
            return os.fdopen(os.memfd_create("gpurun"), "w+b")
    return tempfile.TemporaryFile()


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end. Raises TimedOut after `timeout` seconds, NotInstalled.

    stderr goes to a file, not a pipe: what stays in the background may keep a pipe open long after the end.
    """
    with scratch() as errors:
        process = start(argv, stdin=PIPE, stderr=errors, cwd=cwd, env=env)
        stdout = communicate(process, stdin, timeout)
        errors.seek(0)
        return Completed(tuple(argv), process.returncode, stdout, errors.read())


def communicate(process: Process, stdin: bytes, timeout: float | None) -> bytes:
    """Give `stdin`, return all of stdout. Raises TimedOut, and kills the process then."""
    try:
        return process.communicate(stdin, timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        kill(process)
        raise TimedOut from None
    except BaseException:
        kill(process)
        raise


def finish(process: Process, within: float) -> None:
    """Let a program end by itself for a while, then end it."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=within)
    kill(process)


def kill(process: Process) -> None:
    """End a program that we started and reap it; its pipes are closed."""
    with suppress(ProcessLookupError):
        process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()


def attended(argv: Sequence[str]) -> int:
    """Run a program on the user's terminal and return its exit code (128+N after signal N)."""
    process = start(argv, stdin=None, stdout=None, stderr=None)
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # the program has the terminal, so Ctrl-C is its own
