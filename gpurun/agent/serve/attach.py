"""Run a command inside a session: `attach.py [--record] COMMAND...`. The session stays open while it or its children run.

With `--record`, a session that was started for this command ends with the command's exit code.
"""

import fcntl
import os
import signal
import sys
from typing import List

from service_settings import read_settings

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
NOT_FOUND, NOT_EXECUTABLE, SIGNAL_BASE = 127, 126, 128  # exit codes, as of a shell


def main() -> None:
    path = os.path.join(read_settings()["sockets"], "attached")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    is_first = os.fstat(fd).st_size == 0
    os.write(fd, b".")  # the command may end before the session checks the lock
    os.set_inheritable(fd, True)
    if sys.argv[1] != "--record":
        os.execvp(sys.argv[1], sys.argv[1:])
    code = run_and_wait(sys.argv[2:])
    if is_first:
        with open(path + ".code", "w") as file:
            file.write(str(code))
    sys.exit(code)


def run_and_wait(command: List[str]) -> int:
    """Run the command and return its exit code. Signals are for the command, which shares our terminal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED_SIGNALS)  # until the command can get them
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        become(command)
    for number in FORWARDED_SIGNALS:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
    status = os.waitpid(child, 0)[1]
    return SIGNAL_BASE + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def become(command: List[str]) -> None:
    """Replace this process by the command."""
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print("%s: %s" % (command[0], error.strerror), file=sys.stderr, flush=True)
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
