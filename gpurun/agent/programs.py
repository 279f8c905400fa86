"""Run other programs of the host: short ones with a timeout, long ones with their output passed on."""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from typing import Callable, List, Mapping, Optional, Sequence

Say = Callable[[bytes], None]
Step = Callable[[str], None]  # gets a description of the step that begins

# A killed program that is stuck in the kernel (a driver that hangs) never ends: gpurun stops waiting for it after this.
REAP_TIMEOUT = 1.0  # seconds
TICK = 0.5  # seconds between two calls of `say` while a program prints nothing
TAIL = 1 << 16  # bytes that are kept of a watched program's output


def ignore_step(doing: str) -> None:
    """Ignore the step: a Step for a caller without a run."""


@dataclass(frozen=True)
class Result:
    """Hold how a program ended. `code` is negative for a signal; `timed_out` when it was killed at its timeout."""

    code: int
    out: bytes
    err: bytes
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """Return the output on stderr, or on stdout when stderr is empty."""
        return (self.err.strip() or self.out.strip()).decode("utf-8", "replace")


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[str] = None,
    pass_fds: Sequence[int] = (),
    detached: bool = False,
) -> Result:
    """Run `argv` and wait at most `timeout` seconds for it to end.

    Raises FileNotFoundError when the program is missing.

    Unlike `subprocess.run`, this never waits for a process that a kill does not end. `detached`: in a session of its
    own.
    """
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=detached,
    )
    try:
        out, err = child.communicate(stdin, timeout=timeout)
        return Result(child.returncode, out, err)
    except subprocess.TimeoutExpired:
        return Result(-9, b"", b"", timed_out=True)
    finally:
        kill(child)


def kill(child: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs, and reap it if it ends."""
    if child.poll() is None:
        child.kill()
        try:
            child.wait(REAP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # the pipe held bytes that nobody read
                pass


def watch(
    argv: Sequence[str],
    say: Say,
    *,
    stdin: bytes = b"",
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[str] = None,
) -> Result:
    """Run `argv` to its end, and pass on its raw output (stdout and stderr together) as it comes.

    `say(b"")` is called while the program prints nothing, so that `say` may raise to cancel: the program is killed
    then. The result has the last bytes in `out`.
    """
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
    )
    assert child.stdout is not None
    tail = b""
    try:
        if child.stdin is not None:
            child.stdin.write(stdin)
            child.stdin.close()
        while True:
            ready, _, _ = select.select([child.stdout], [], [], TICK)
            piece = os.read(child.stdout.fileno(), 1 << 16) if ready else None
            if piece == b"":
                break
            say(piece or b"")
            tail = (tail + (piece or b""))[-TAIL:]
        while child.poll() is None:  # the program closed its output and still runs
            say(b"")
            time.sleep(TICK / 10)
        return Result(child.returncode, tail, b"")
    finally:
        kill(child)


def last_lines(output: bytes, count: int = 3) -> List[str]:
    """Return the last lines of a program's output, without empty lines. A `\\r` ends a line too."""
    lines = output.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()][-count:]
