"""Read the settings of the job from the environment that the wrapper sets, and name the files that the agent reads."""

import os
from dataclasses import dataclass
from typing import Mapping, Optional

# The same names as in the agent's vocabulary, which is not in the container; a test compares them.
PROGRESS_FILE = "progress.jsonl"
LEDGER_FILE = "checkpoints.jsonl"
STOP_FILE = "stop"
SAVING_FILE = "saving"
STOPPED_FILE = "stopped.json"
STOP_FOLDER = "gpurun-stop"


@dataclass(frozen=True)
class Settings:
    """`out` and `workspace` are absolute; `attempt` counts from 1; `resume` is the checkpoint to resume from, or None."""

    out: str
    workspace: str
    attempt: int
    resume: Optional[str]

    def file(self, name: str) -> str:
        return os.path.join(self.out, name)


def read_settings(environ: Mapping[str, str] = os.environ) -> Optional[Settings]:
    """Return the settings, or None when this process does not belong to a run of gpurun."""
    out = environ.get("GPURUN_OUT", "")
    if not os.path.isdir(out):
        return None
    attempt = environ.get("GPURUN_ATTEMPT", "")
    return Settings(
        out=os.path.abspath(out),
        workspace=os.path.abspath(environ.get("GPURUN_WORKSPACE") or os.getcwd()),
        attempt=int(attempt) if attempt.isdigit() else 1,
        resume=environ.get("GPURUN_RESUME") or None,
    )
