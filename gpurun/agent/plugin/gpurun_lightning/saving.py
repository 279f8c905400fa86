"""Mark that a checkpoint is being written, so that the agent waits for it before it ends the job."""

import atexit
import os
import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # seconds since the boot, as the agent counts them


class Saving:
    """Lightning tells when a save begins, and not when it has ended: the next hook that is called ends it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.on = False

    def begin(self) -> None:
        with open(self.path, "w") as file:
            file.write("%.3f\n" % time.clock_gettime(_CLOCK))
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
