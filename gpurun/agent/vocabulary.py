"""The words that laptop and host share: states, reasons, file names of a run, exit codes.

Both floors import this module; it imports nothing of ours.
"""

from typing import Any, Mapping, Optional

PROTOCOL = 1
# A run of a higher number was begun or continued by a newer gpurun: it is shown, and nothing of it is touched.
JOB_SCHEMA = 1
JOURNAL_SCHEMA = 1  # `v` of an event; an event without one is of 1
STORE_SCHEMA = 1  # of what a laptop keeps about a run; a file without one is of 1
UPDATE = "update gpurun on this laptop (for example: pip install --upgrade gpurun)"

# States, in the order in which a run goes through them.
CREATED = "created"
SYNCING = "syncing"
QUEUED = "queued"
PREPARING = "preparing"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
STOPPED = "stopped"
TIMED_OUT = "timed_out"
LOST = "lost"
# On the laptop alone: the host did not answer, which changes nothing about its runs.
UNKNOWN = "unknown"

ENDS = (SUCCEEDED, FAILED, STOPPED, TIMED_OUT, LOST)
STATES = (CREATED, SYNCING, QUEUED, PREPARING, RUNNING, *ENDS)


def is_over(record: Mapping[str, Any]) -> bool:
    """Return whether a RunRecord tells of an end; of one, too, that only a newer gpurun knows the name of."""
    name = record["state"]
    return name in ENDS or (name not in (*STATES, UNKNOWN) and record.get("live") is False)


def seconds_ran(record: Mapping[str, Any]) -> Optional[float]:
    """Return how long the job of an ended run worked, all attempts together, as far as is known; None when it never did."""
    spans = [_span(told) for told in (*(record.get("attempts") or []), record)]
    known = [span for span in spans if span is not None]
    return sum(known) if known and record.get("ended") is not None else None


def _span(told: Mapping[str, Any]) -> Optional[float]:
    """Of one attempt. `ran` is no difference of two readings of a clock, which may have been set between them."""
    started, ended, ran = told.get("started"), told.get("ended"), told.get("ran")
    if started is None or ended is None:
        return None
    return float(ended - started if ran is None else ran)


# Why a run ended, in a word: (reason, what it means).
REASONS = {
    "exit": "the job's command ended by itself",
    "signal": "the job was ended by a signal that gpurun did not send",
    "oom": "the job ran out of the memory it was given",
    "stop": "a stop was asked for",
    "duration": "its --max-duration was over",
    "sync": "the project never arrived whole",
    "image": "the image could not be built or pulled",
    "dependencies": "the project's dependencies could not be installed",
    "start": "the container or process could not be started",
    "disk": "the host's disk is full",
    "gpus": "the host no longer has the GPUs that were asked for",
    "reboot": "the host was restarted while the job ran",
    "removed": "the job's container was removed by somebody else",
    "engine": "the engine was killed as the job ended; how it had ended is not known",
    "unseen": "the job ended with 0 while gpurun did not watch it; whether it was stopped is not known",
    "restarted": "the job's container was started again by somebody else; how the job had ended is not known",
    "keeper": "the processes that watched the job were killed: how it ended is not known",
    "abandoned": "it was given up, because the machine that ran it is gone",
    "internal": "gpurun itself failed on the host",
}

END_NOT_KNOWN = "what watched the job was killed from outside: how the job ended is not known"

# After these a run with retries left begins another attempt by itself. Not after "keeper": the job may have done all its work.
RETRIED = ("exit", "signal", "oom", "reboot")

# Exit codes of the laptop command. With `submit -f`, `wait` and `status --exit-code` the job's own comes first.
EXIT_NOTHING = 1  # what was looked for is not there, a checkpoint or the run of a file; or a person said no
EXIT_USAGE = 2
EXIT_NO_GPU = 3  # of `host check --gpu`
EXIT_FAILED = 125
EXIT_UNREACHABLE = 255
EXIT_INTERRUPTED = 130

HOME = ".gpurun"  # the folder on a host that holds gpurun's files, and nothing else
LOCKS = "locks"  # in it, where /tmp has no place for them
HOST_ID_FILE = r"host-id-[0-9a-f]{12}(-[0-9a-f]{12})?"  # the name of the file that has a host's id
# A run's id: it is a directory, a container's name (behind `gpurun-`) and typed by people.
RUN_ID = r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?-[0-9a-z]{4}"

RUNTIMES = ("docker", "bare")

CONTAINER_PREFIX = "gpurun-"
LABEL_RUN = "gpurun.run"
LABEL_GPUS = "gpurun.gpus"
LABEL_OWNER = "gpurun.owner"
LABEL_TOKEN = "gpurun.token"  # tells the run of one user from another's of the same id
LABEL_ATTEMPT = "gpurun.attempt"
LABEL_SHELL = "gpurun.shell"  # of a shell's container beside a run that has ended: the run
LABEL_LAYER = "gpurun.layer"  # on images that gpurun made from a project's dependencies

# Where a job finds its things inside a container.
WORKSPACE_MOUNT = "/workspace"
OUT_MOUNT = "/gpurun/out"
RO_MOUNT = "/gpurun/ro"
SECRETS_MOUNT = "/gpurun/secrets"
BOARD_MOUNT = "/gpurun/board"  # of a TensorBoard alone
CACHE_MOUNT = "/gpurun/cache"
DATA_MOUNT = "/gpurun/data"

# gpurun's own folder in a workspace: it is never fetched.
WORKSPACE_PRIVATE = ".gpurun"
RESUME_IN_WORKSPACE = WORKSPACE_PRIVATE + "/resume"  # a checkpoint that came from elsewhere
TMP_IN_WORKSPACE = WORKSPACE_PRIVATE + "/tmp"
# And the one for checkpoints of a training that was stopped: they are fetched.
STOP_FOLDER = "gpurun-stop"

# Runs that are no training, by what they are.
TENSORBOARD = "tensorboard"
JUPYTER = "jupyter"
SHELL = "shell"
GPU_CHECK = "gpucheck"
SERVICES = (TENSORBOARD, JUPYTER, SHELL, GPU_CHECK)

# Folders of a fetched run, beside the job's own files: the run's record, and what the job wrote outside its workspace.
RECORD_FOLDER = "_gpurun"
OUTSIDE_FOLDER = "outside"

STOP_FILE = "stop"
LOG_FILE = "log"
# Written by the plugin in the job's training; the first two a line each time.
PROGRESS_FILE = "progress.jsonl"
LEDGER_FILE = "checkpoints.jsonl"
SAVING_FILE = "saving"  # is there while a checkpoint is being written
STOPPED_FILE = "stopped.json"
SOCKETS = "sockets"
TOKEN_FILE = "token"  # Jupyter's, among the run's secrets
# In ro/: what starts the job, and the environment that it sets first.
WRAPPER = "wrapper"
SERVE = "serve"  # the programs of a service
NOTEBOOK = "notebook"  # the program of a notebook
PLUGIN = "plugin"
SETTINGS = "settings"

# The next step where an engine cannot give GPUs to a container.
TOOLKIT_GUIDE = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
TOOLKIT_MEND = (
    """on the host, tell the engine of the NVIDIA Container Toolkit:
sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker
(when it has no nvidia-ctk, install that first: %s)"""
    % TOOLKIT_GUIDE
)
