"""What runs a job. A runtime builds argv and parses answers; it opens no connection. One file each, loaded when named."""

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
    """What is there of a job: `absent`, `created`, `running`, `exited`; or `no_answer`, which says nothing about it."""

    kind: str
    exit_code: Optional[int] = None
    oom: bool = False
    started_at: Optional[float] = None  # unix seconds
    finished_at: Optional[float] = None
    # Of a job that has exited, when `ended` was asked:
    signalled: bool = False  # it got a signal before its end that gpurun did not send
    restarted: bool = False  # somebody started it again, and nobody remembers how the job had ended
    unseen: bool = False  # nobody of gpurun's watched, and the engine has forgotten whether it was stopped
    made_up: bool = False  # the exit code is not the job's: the engine was killed as the job ended


class Runtime(Protocol):
    """What a supervisor asks for. Every method may be called again after a crash at any point."""

    name: str

    def prepare(self, run: RunPaths, job: AttemptJob, say: Say) -> Prepared:
        """Make image and dependencies ready: {"image", "digest", "image_id", "environment"}, each a string or None.

        `say` gets what the engine and pip print, raw, and b"" at least every second meanwhile; it may raise to give up.
        Raises RunFailed; EngineError when the engine is away.
        """

    def create_and_start(
        self, run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: List[Gpu], locks: List[int]
    ) -> None:
        """Start the job, once: one that exists is adopted. A job without an engine inherits the descriptors `locks`.

        Raises RunFailed; ImageGone when the image is to be prepared again; EngineError when the engine is away.
        """

    def about(self, run: RunPaths, job: AttemptJob, prepared: Prepared) -> Optional[Inventory]:
        """What the job's Python has, as inventory_probe.py tells it; None when it has none. May take seconds.

        Raises AgentError.
        """

    def presence(self, run: RunPaths, job: AttemptJob) -> Presence:
        """Never raises: what cannot be told is `no_answer`."""

    def ended(self, run: RunPaths, job: AttemptJob, presence: Presence, started: Optional[float]) -> Presence:
        """Complete the presence of a job that has exited by what is remembered of its end: `signalled` and below.

        `started`: when gpurun started the job, unix seconds. Never raises: the answer is `no_answer` when it must be asked
        again.
        """

    def wait(self, run: RunPaths, job: AttemptJob, seconds: float) -> None:
        """Return when the job has ended, at the latest after `seconds`; earlier when it cannot be waited for."""

    def signal(self, run: RunPaths, job: AttemptJob, name: str) -> None:
        """`TERM` goes to the main process alone, `KILL` to everything of the job. One that has ended is no error.

        Raises AgentError when the engine does not answer.
        """

    def remove(self, run: RunPaths, job: AttemptJob, *, unstarted: bool = False) -> None:
        """Take away the container and what belongs to it. Nothing there is no error; AgentError otherwise.

        One that was never started is not forced away, for a start may be on its way: EngineError `running` when that came first.
        With `unstarted`, a container of this attempt that has been started stays, with the same error.
        """

    def notes(self, job: JobSpec) -> List[str]:
        """What was asked for and cannot be held here, a sentence each."""

    def relay(self, run: RunPaths, job: AttemptJob, socket: str, port: int) -> Optional[List[str]]:
        """argv of what leads from `socket`, a name in the run's folder of sockets, to `port` on the job's own loopback
        for as long as its stdin is open. None where the host's loopback is the job's.
        """

    def shell(self, run: RunPaths, job: AttemptJob, command: Sequence[str], tty: bool) -> List[str]:
        """argv of a shell (or of `command`) beside the live job, or in a fresh place like its own. Raises AgentError."""

    def shells(self, run: RunPaths, job: AttemptJob) -> List[str]:
        """For each shell that is open in the workspace of a run that has ended, the command that ends it. Raises AgentError."""


RUNTIMES: Dict[str, Tuple[str, str]] = {
    "docker": ("docker", "Docker"),
    "bare": ("bare", "Bare"),
}


def load(name: str, engine: Optional[Sequence[str]] = None) -> Runtime:
    """The runtime of this name. `engine` is the argv of the engine's program. KeyError for a name that is none."""
    module, kind = RUNTIMES[name]
    made: Runtime = getattr(importlib.import_module("." + module, __name__), kind)(list(engine or ["docker"]))
    return made
