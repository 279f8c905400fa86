"""The file that says that a checkpoint is being written: the agent lets a job that is to end finish that."""

import atexit
import os


class Saving:
    """Lightning tells when a save begins, and not when it has ended: the next hook that is called ends it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.on = False

    def begin(self) -> None:
        with open(self.path, "w"):
            pass
        if not self.on:
            self.on = True
            atexit.register(self.end)

    def end(self) -> None:
        if self.on:
            self.on = False
            atexit.unregister(self.end)
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
