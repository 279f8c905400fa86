"""What another account of the host does beside us: as root we act as `nobody`, elsewhere as ourselves."""

from __future__ import annotations

import os
import pwd
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
UID = NOBODY if os.getuid() == 0 else os.getuid()
NAME = pwd.getpwuid(UID).pw_name


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """In place of /tmp: pytest's own folders are closed to other accounts."""
    with tempfile.TemporaryDirectory(prefix="gpurun-test-") as name:
        os.chmod(name, 0o1777)
        yield Path(name)


def does(*acts: Callable[[], object]) -> None:
    """Let the other account do it, and wait until it is done."""
    pid = _start(acts, stays=False)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@contextmanager
def keeps(*acts: Callable[[], object]) -> Iterator[None]:
    """The other account has done it, and its process lives on, with the locks that it took."""
    pid = _start(acts, stays=True)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _start(acts: Sequence[Callable[[], object]], *, stays: bool) -> int:
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.umask(0o022)
            for act in acts:
                act()
            code = 0
            os.write(tell, b"1")
            if stays:
                signal.pause()
        finally:
            os._exit(code)
    os.close(tell)
    assert os.read(done, 1) == b"1"
    os.close(done)
    return pid
