"""Run a command inside a session, and keep the session open while the command, or what it starts, runs: `attach.py COMMAND...`."""

import fcntl
import os
import sys

from told import told


def main() -> None:
    path = os.path.join(told()["sockets"], "attached")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.write(fd, b".")  # a command may be over before the session looks
    os.set_inheritable(fd, True)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
