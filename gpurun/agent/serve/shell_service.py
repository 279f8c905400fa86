"""Holds a session open for as long as somebody has a shell in it."""

import fcntl
import glob
import os
import time

from told import told

LOOK_EVERY = 1.0  # seconds
FIRST_SHELL_IN = 600.0  # seconds


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


def holders(path: str) -> int:
    """How many processes hold the lock: a shell at its prompt is one, what it runs is more."""
    count, path = 0, os.path.realpath(path)  # as the kernel calls it
    for process in glob.glob("/proc/[0-9]*/fd"):
        try:
            count += any(os.readlink(os.path.join(process, fd)) == path for fd in os.listdir(process))
        except OSError:
            continue
    return count


def last_typed() -> float:
    """When a terminal was last written to or read from, in unix seconds; 0 without terminals."""
    moments = [0.0]
    for terminal in glob.glob("/dev/pts/[0-9]*"):
        try:
            found = os.stat(terminal)
            moments.append(max(found.st_atime, found.st_mtime))
        except OSError:
            continue
    return max(moments)


def main() -> None:
    service = told()
    os.makedirs(service["sockets"], mode=0o700, exist_ok=True)
    path = os.path.join(service["sockets"], "attached")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    print("the session stands", flush=True)
    waited = time.monotonic() + FIRST_SHELL_IN
    while not os.path.getsize(path):  # see attach.py
        if time.monotonic() > waited:
            print("nobody came: the session ends", flush=True)
            return
        time.sleep(LOOK_EVERY / 5)
    used = time.time()
    while held(path):
        time.sleep(LOOK_EVERY)
        used = time.time() if holders(path) > 1 else max(used, last_typed())
        if time.time() > used + float(service["idle"]):
            print("idle for %g minutes: the session ends" % (float(service["idle"]) / 60), flush=True)
            return


if __name__ == "__main__":
    main()
