"""Holds a session open for as long as somebody has a shell in it."""

import fcntl
import glob
import os
import sys
import time
from typing import List

from told import told

LOOK_EVERY = 1.0  # seconds
FIRST_SHELL_IN = 600.0  # seconds
SHELLS = ("sh", "bash", "dash", "ash", "busybox", "zsh", "ksh", "fish", "csh", "tcsh")


def held(path: str) -> bool:
    """Whether a shell, or something that was started in it, holds the lock."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def holders(path: str) -> List[str]:
    """The processes that hold the lock, as their folders in /proc."""
    found, path = [], os.path.realpath(path)  # as the kernel calls it
    for process in glob.glob("/proc/[0-9]*"):
        fds = os.path.join(process, "fd")
        try:
            if any(os.readlink(os.path.join(fds, fd)) == path for fd in os.listdir(fds)):
                found.append(process)
        except OSError:
            continue
    return found


def computes(processes: List[str]) -> bool:
    """A shell at its prompt is one process; what it runs makes two, and a command that was given is no shell."""
    return len(processes) > 1 or any(name_of(process) not in SHELLS for process in processes)


def name_of(process: str) -> str:
    try:
        with open(os.path.join(process, "comm")) as file:
            return file.read().strip()
    except OSError:  # it has just ended
        return SHELLS[0]


def last_typed(processes: List[str]) -> float:
    """When a terminal of theirs was last written to or read from, in unix seconds; 0 without terminals."""
    moments = [0.0]
    for process in processes:
        terminal = os.path.join(process, "fd", "0")
        try:
            if os.readlink(terminal).startswith("/dev/pts/"):
                found = os.stat(terminal)
                moments.append(max(found.st_atime, found.st_mtime))
        except OSError:
            continue
    return max(moments)


def code_of_its_command(path: str) -> int:
    """Return the exit code of the command that the session was begun for; 0 for a shell."""
    try:
        with open(path + ".code") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return 0


def main() -> int:
    service = told()
    os.makedirs(service["sockets"], mode=0o700, exist_ok=True)
    path = os.path.join(service["sockets"], "attached")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    print("the session stands", flush=True)
    waited = time.monotonic() + FIRST_SHELL_IN
    while not os.path.getsize(path):  # see attach.py
        if time.monotonic() > waited:
            print("nobody came: the session ends", flush=True)
            return 0
        time.sleep(LOOK_EVERY / 5)
    used, typed = time.monotonic(), 0.0
    while held(path):
        time.sleep(LOOK_EVERY)
        there = holders(path)
        before, typed = typed, last_typed(there)
        if computes(there) or typed != before:  # compared, and not how old it is: the host's clock may be set
            used = time.monotonic()
        if time.monotonic() > used + float(service["idle"]):
            print("idle for %g minutes: the session ends" % (float(service["idle"]) / 60), flush=True)
            return 0
    return code_of_its_command(path)


if __name__ == "__main__":
    sys.exit(main())
