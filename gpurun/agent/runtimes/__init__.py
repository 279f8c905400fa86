"""Run jobs. A runtime builds argv and parses output; it opens no connection.

Each is one file, imported when it is named.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Protocol, Sequence, Tuple

from ..host.gpus import Gpu
from ..paths import RunPaths

if TYPE_CHECKING:
    from ..schema.job import AttemptJob, JobSpec
    from ..schema.run import Inventory, Prepared

Say = Callable[[bytes], None]


@dataclass(frozen=True)
class Presence:
    """Describe a job's container or process: `absent`, `created`, `running`, `exited`; or `no_answer`, which means
    unknown.
    """

    kind: str
    exit_code: Optional[int] = None
    oom: bool = False
    started_at: Optional[float] = None  # unix seconds
    finished_at: Optional[float] = None
    # Set by `ended`, for a job that has exited:
    signalled: bool = False  # it got a signal before its end, and not from gpurun
    restarted: bool = False  # it was started again, and no record shows how the job had ended
    unseen: bool = False  # gpurun did not watch it, and the engine has forgotten whether it was stopped
    made_up: bool = False  # the exit code is not the job's: the engine was killed as the job ended


class Runtime(Protocol):
    """Define what a supervisor calls. Every method may be called again after a crash at any point."""

    name: str

    def prepare(self, run: RunPaths, job: AttemptJob, say: Say) -> Prepared:
        """Prepare image and dependencies: {"image", "digest", "image_id", "environment"}, each a string or None.

        `say` gets the raw output of the engine and pip, and b"" at least every second in between; it may raise to
        cancel. Raises RunFailed; EngineError when the engine does not answer.
        """

    def create_and_start(
        self, run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: List[Gpu], locks: List[int]
    ) -> None:
        """Start the job once: an existing job is adopted. A job without an engine inherits the descriptors `locks`.

        Raises RunFailed; ImageGone when the image must be prepared again; EngineError when the engine does not answer.
        """

    def about(self, run: RunPaths, job: AttemptJob, prepared: Prepared) -> Optional[Inventory]:
        """Return the inventory of the job's Python from inventory_probe.py, or None without a Python.

        May take seconds.

        Raises AgentError.
        """

    def presence(self, run: RunPaths, job: AttemptJob) -> Presence:
        """Return the job's presence. Never raises: an unknown presence is `no_answer`."""

    def ended(self, run: RunPaths, job: AttemptJob, presence: Presence, started: Optional[float]) -> Presence:
        """Complete the presence of an exited job by what the engine recorded of its end: `signalled` and the fields
        after it.

        `started`: when gpurun started the job, unix seconds. Never raises: returns `no_answer` when the caller must ask
        again.
        """

    def wait(self, run: RunPaths, job: AttemptJob, seconds: float) -> None:
        """Return when the job has ended, at the latest after `seconds`; earlier when waiting is impossible."""

    def signal(self, run: RunPaths, job: AttemptJob, name: str) -> None:
        """Send `TERM` to the main process alone, or `KILL` to all processes of the job. Do nothing for an ended job.

        Raises AgentError when the engine does not answer.
        """

    def remove(self, run: RunPaths, job: AttemptJob, *, unstarted: bool = False) -> None:
        """Remove the container and what belongs to it.

        A missing container is not an error; otherwise raises AgentError.

        A container that was never started is not removed by force, because a start may be pending: EngineError
        `running` when the start came first. With `unstarted`, a container of this attempt that was started stays, with
        the same error.
        """

    def notes(self, job: JobSpec) -> List[str]:
        """Return, a sentence each, the requests that this runtime cannot enforce."""

    def relay(self, run: RunPaths, job: AttemptJob, socket: str, port: int) -> Optional[List[str]]:
        """Return argv of a program that connects `socket`, a name in the run's folder of sockets, with `port` on the
        job's own loopback, as long as its stdin is open. None where the job uses the host's loopback.
        """

    def shell(self, run: RunPaths, job: AttemptJob, command: Sequence[str], tty: bool) -> List[str]:
        """Return argv of a shell (or of `command`) beside the live job, or in a fresh copy of its environment.

        Raises AgentError.
        """

    def shells(self, run: RunPaths, job: AttemptJob) -> List[str]:
        """Return, for each open shell in the workspace of an ended run, the command that ends it. Raises AgentError."""


RUNTIMES: Dict[str, Tuple[str, str]] = {
    "docker": ("docker", "Docker"),
    "bare": ("bare", "Bare"),
}


def load(name: str, engine: Optional[Sequence[str]] = None) -> Runtime:
    """Return the runtime with this name. `engine` is the argv of the engine's program.

    Raises KeyError for an unknown name.
    """
    module, kind = RUNTIMES[name]
    made: Runtime = getattr(importlib.import_module("." + module, __name__), kind)(list(engine or ["docker"]))
    return made
