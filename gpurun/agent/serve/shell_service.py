"""Keep a session open while a shell runs in it."""

import fcntl
import glob
import os
import sys
import time
from typing import List

from service_settings import read_settings

CHECK_INTERVAL = 1.0  # seconds
FIRST_SHELL_TIMEOUT = 600.0  # seconds
SHELLS = ("sh", "bash", "dash", "ash", "busybox", "zsh", "ksh", "fish", "csh", "tcsh")


def is_locked(path: str) -> bool:
    """Return whether a shell or one of its children holds the lock."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def holders(path: str) -> List[str]:
    """Return the /proc folders of the processes that hold the lock."""
    folders, path = [], os.path.realpath(path)  # the name that /proc shows
    for process in glob.glob("/proc/[0-9]*"):
        fds = os.path.join(process, "fd")
        try:
            if any(os.readlink(os.path.join(fds, fd)) == path for fd in os.listdir(fds)):
                folders.append(process)
        except OSError:
            continue
    return folders


def is_busy(processes: List[str]) -> bool:
    """Return whether a command runs: an idle shell is one process, and a command without a shell is not in SHELLS."""
    return len(processes) > 1 or any(command_name(process) not in SHELLS for process in processes)


def command_name(process: str) -> str:
    try:
        with open(os.path.join(process, "comm")) as file:
            return file.read().strip()
    except OSError:  # the process has just ended
        return SHELLS[0]


def last_typed(processes: List[str]) -> float:
    """Return when a terminal of the processes was last written or read, in unix seconds; 0 without terminals."""
    times = [0.0]
    for process in processes:
        terminal = os.path.join(process, "fd", "0")
        try:
            if os.readlink(terminal).startswith("/dev/pts/"):
                status = os.stat(terminal)
                times.append(max(status.st_atime, status.st_mtime))
        except OSError:
            continue
    return max(times)


def recorded_exit_code(path: str) -> int:
    """Return the exit code of the command that the session was started for; 0 for a shell."""
    try:
        with open(path + ".code") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return 0


def main() -> int:
    service = read_settings()
    os.makedirs(service["sockets"], mode=0o700, exist_ok=True)
    path = os.path.join(service["sockets"], "attached")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    print("the session is open", flush=True)
    deadline = time.monotonic() + FIRST_SHELL_TIMEOUT
    while not os.path.getsize(path):  # see attach.py
        if time.monotonic() > deadline:
            print("no shell was opened: the session ends", flush=True)
            return 0
        time.sleep(CHECK_INTERVAL / 5)
    last_used, typed = time.monotonic(), 0.0
    while is_locked(path):
        time.sleep(CHECK_INTERVAL)
        lock_holders = holders(path)
        before, typed = typed, last_typed(lock_holders)
        if (
            is_busy(lock_holders) or typed != before
        ):  # compare the times, not their age, because the host's clock may be set
            last_used = time.monotonic()
        if time.monotonic() > last_used + float(service["idle"]):
            print("idle for %g minutes: the session ends" % (float(service["idle"]) / 60), flush=True)
            return 0
    return recorded_exit_code(path)


if __name__ == "__main__":
    sys.exit(main())
