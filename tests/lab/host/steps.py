"""Running the steps that bring the lab up, so that a failing one says what it said."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TAIL = 4000


class LabError(Exception):
    """The lab cannot come up, or one of its parts failed. The message ends with what that part printed."""


def run(
    argv: Sequence[str | Path],
    *,
    step: str,
    stdin: bytes = b"",
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run `argv` to its end and return its stdout. Raises LabError, naming `step`, on any exit code but 0."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=env, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{step}: {error}") from error
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"") + (error.stderr or b"")
        raise LabError(f"{step}: no end after {timeout:g} s\n{_tail(said)}") from error
    if done.returncode != 0:
        raise LabError(f"{step}: exit code {done.returncode}\n{_tail(done.stdout + done.stderr)}")
    return done.stdout.decode(errors="replace")


def until(question: Callable[[], bool], *, step: str, seconds: float, said: Path | None = None) -> None:
    """Ask `question` again and again until it says yes. Raises LabError with the end of `said` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            tail = _tail(said.read_bytes()) if said and said.exists() else ""
            raise LabError(f"{step}: not within {seconds:g} s\n{tail}")
        time.sleep(0.02)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Does something accept connections on this loopback port?"""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _tail(said: bytes) -> str:
    return said[-TAIL:].decode(errors="replace").strip()
