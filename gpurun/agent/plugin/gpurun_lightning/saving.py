"""Mark that a checkpoint is being written, so that the agent waits for it before it ends the job."""

import atexit
import os
import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # seconds since the boot, as in the agent


class Saving:
    """The mark. Lightning calls a hook when a save begins and none when it ends, so the next hook of any kind ends it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_on = False

    def begin(self) -> None:
        with open(self.path, "w") as file:
            file.write("%.3f\n" % time.clock_gettime(_CLOCK))
        if not self.is_on:
            self.is_on = True
            atexit.register(self.end)

    def end(self) -> None:
        if self.is_on:
            self.is_on = False
            atexit.unregister(self.end)
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
