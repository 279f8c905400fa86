"""A person at a terminal: a program with a controlling terminal of its own, what it shows, and what is typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Terminal:
    """Runs `argv` on a terminal. Use it as a context manager."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self.shown = ""
        self._looked = 0
        self._code: int | None = None
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            try:
                os.chdir(cwd)
                os.execvpe(argv[0], list(argv), dict(env))
            finally:
                os._exit(127)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def expect(self, text: str, seconds: float = 30) -> None:
        """Wait until `text` is shown, after what was expected before."""
        end = time.monotonic() + seconds
        while (at := self.shown.find(text, self._looked)) < 0:
            assert self._read(end), f"no {text!r} in:\n{self.shown}"
        self._looked = at + len(text)

    def type(self, text: str) -> None:
        """Type a line. Prompts for passwords throw away what was typed before they set up the terminal."""
        time.sleep(0.3)
        os.write(self._fd, text.encode() + b"\n")

    def wait(self, seconds: float = 60) -> int:
        """The exit code, once the program has ended."""
        end = time.monotonic() + seconds
        while self._read(end):
            pass
        while self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < end, f"still there, and showed:\n{self.shown}"
            time.sleep(0.02)
        return self._code

    def _read(self, end: float) -> bool:
        """False when the program let go of the terminal, or the time is over."""
        if not select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other end open
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
