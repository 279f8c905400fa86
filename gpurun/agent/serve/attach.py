"""Run a command inside a session, and keep the session open while the command, or what it starts, runs.

`attach.py [--record] COMMAND...`: with `--record`, a session that this command begins ends with the command's exit code.
"""

import fcntl
import os
import signal
import sys
from typing import List

from told import told

OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
NOT_FOUND, NOT_RUN, BY_SIGNAL = 127, 126, 128  # as a shell reports them


def main() -> None:
    path = os.path.join(told()["sockets"], "attached")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    begins = os.fstat(fd).st_size == 0
    os.write(fd, b".")  # a command may be over before the session looks
    os.set_inheritable(fd, True)
    if sys.argv[1] != "--record":
        os.execvp(sys.argv[1], sys.argv[1:])
    code = code_of(sys.argv[2:])
    if begins:
        with open(path + ".code", "w") as file:
            file.write(str(code))
    sys.exit(code)


def code_of(command: List[str]) -> int:
    """Run the command to its end. Signals are for the command, which has the terminal with us."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until somebody is there to get them
    for number in OF_THE_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        run(command)
    for number in PASSED_ON:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = os.waitpid(child, 0)[1]
    return BY_SIGNAL + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run(command: List[str]) -> None:
    """Become the command."""
    for number in OF_THE_TERMINAL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print("%s: %s" % (command[0], error.strerror), file=sys.stderr, flush=True)
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN)


if __name__ == "__main__":
    main()
