"""Define the words that laptop and host share: states, reasons, file names of a run, exit codes.

Both floors import this module; it imports no other module of gpurun.
"""

from typing import Any, Mapping, Optional

PROTOCOL = 1
# A run with a higher number was made or continued by a newer gpurun: it is shown, and never changed.
JOB_SCHEMA = 1
JOURNAL_SCHEMA = 1  # `v` of an event; an event without `v` has schema 1
STORE_SCHEMA = 1  # of the laptop's record of a run; a file without a schema has schema 1
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
# Only on the laptop: the host did not answer, which changes nothing about its runs.
UNKNOWN = "unknown"

ENDS = (SUCCEEDED, FAILED, STOPPED, TIMED_OUT, LOST)
STATES = (CREATED, SYNCING, QUEUED, PREPARING, RUNNING, *ENDS)


def is_over(record: Mapping[str, Any]) -> bool:
    """Return whether a RunRecord is of an ended run. An end that only a newer gpurun can name counts too."""
    name = record["state"]
    return name in ENDS or (name not in (*STATES, UNKNOWN) and record.get("live") is False)


def seconds_ran(record: Mapping[str, Any]) -> Optional[float]:
    """Return how long the job of an ended run ran, all attempts together, as far as it is known; None when it never
    ran.
    """
    spans = [_span(attempt) for attempt in (*(record.get("attempts") or []), record)]
    known_spans = [span for span in spans if span is not None]
    return sum(known_spans) if known_spans and record.get("ended") is not None else None


def _span(record: Mapping[str, Any]) -> Optional[float]:
    """Return the seconds that one attempt ran.

    `ran` is not computed from two readings of a clock, which may be set in between.
    """
    started, ended, ran = record.get("started"), record.get("ended"), record.get("ran")
    if started is None or ended is None:
        return None
    return float(ended - started if ran is None else ran)


# Why a run ended: reason -> its meaning.
REASONS = {
    "exit": "the job's command ended by itself",
    "signal": "the job was ended by a signal that gpurun did not send",
    "oom": "the job used more memory than its limit",
    "stop": "a stop was requested",
    "duration": "its --max-duration was reached",
    "sync": "the project never arrived completely",
    "image": "the image could not be built or pulled",
    "dependencies": "the project's dependencies could not be installed",
    "start": "the container or process could not be started",
    "disk": "the host's disk is full",
    "gpus": "the host no longer has the GPUs that were requested",
    "reboot": "the host was restarted while the job ran",
    "removed": "the job's container was removed, but not by gpurun",
    "engine": "the engine was killed as the job started or ended; how the job ended is unknown",
    "unseen": "the job ended with 0 while gpurun did not watch it; whether it was stopped is unknown",
    "restarted": "the job's container was started again, but not by gpurun; how the job had ended is unknown",
    "keeper": "the processes that watched the job were killed; how the job ended is unknown",
    "abandoned": "the run was abandoned, because the host that ran it is gone",
    "internal": "gpurun itself failed on the host",
}

END_NOT_KNOWN = "the processes that watched the job were killed from outside; how the job ended is unknown"

# After these a run with retries left begins another attempt automatically. Not after "keeper" or "engine": the job may
# have done all its work.
RETRIED = ("exit", "signal", "oom", "reboot")

# Exit codes of the laptop command. With `submit -f`, `wait` and `status --exit-code` the job's own exit code comes
# first.
EXIT_NOTHING = 1  # a requested item does not exist (a checkpoint, or the run of a file), or a person answered no
EXIT_USAGE = 2
EXIT_NO_GPU = 3  # of `host check --gpu`
EXIT_FAILED = 125
EXIT_UNREACHABLE = 255
EXIT_INTERRUPTED = 130

HOME = ".gpurun"  # the folder on a host that holds only gpurun's files
LOCKS = "locks"  # in HOME, when /tmp cannot be used for locks
HOST_ID_FILE = r"host-id-[0-9a-f]{12}(-[0-9a-f]{12})?"  # the name of the file that has a host's id
# A run's id: it is a directory, a container's name (after `gpurun-`) and typed by people.
RUN_ID = r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?-[0-9a-z]{4}"

RUNTIMES = ("docker", "bare")

CONTAINER_PREFIX = "gpurun-"
LABEL_RUN = "gpurun.run"
LABEL_GPUS = "gpurun.gpus"
LABEL_OWNER = "gpurun.owner"
LABEL_TOKEN = "gpurun.token"  # distinguishes the run of one user from another user's run of the same id
LABEL_ATTEMPT = "gpurun.attempt"
LABEL_SHELL = "gpurun.shell"  # on a shell's container beside an ended run: the run
LABEL_LAYER = "gpurun.layer"  # on images that gpurun made from a project's dependencies

# Where a job finds its files inside a container.
WORKSPACE_MOUNT = "/workspace"
OUT_MOUNT = "/gpurun/out"
RO_MOUNT = "/gpurun/ro"
SECRETS_MOUNT = "/gpurun/secrets"
BOARD_MOUNT = "/gpurun/board"  # only of a TensorBoard
CACHE_MOUNT = "/gpurun/cache"
DATA_MOUNT = "/gpurun/data"

# gpurun's own folder in a workspace: it is never fetched.
WORKSPACE_PRIVATE = ".gpurun"
RESUME_IN_WORKSPACE = WORKSPACE_PRIVATE + "/resume"  # a checkpoint that came from another place
TMP_IN_WORKSPACE = WORKSPACE_PRIVATE + "/tmp"
# The folder for checkpoints of a training that was stopped: they are fetched.
STOP_FOLDER = "gpurun-stop"

# Runs that are services and not trainings, by kind.
TENSORBOARD = "tensorboard"
JUPYTER = "jupyter"
SHELL = "shell"
GPU_CHECK = "gpucheck"
SERVICES = (TENSORBOARD, JUPYTER, SHELL, GPU_CHECK)

# Folders of a fetched run, beside the job's own files: the run's record, and the files that the job wrote outside its
# workspace.
RECORD_FOLDER = "_gpurun"
OUTSIDE_FOLDER = "outside"

STOP_FILE = "stop"
LOG_FILE = "log"
# Written by the plugin in the job's training; the first two line by line.
PROGRESS_FILE = "progress.jsonl"
LEDGER_FILE = "checkpoints.jsonl"
SAVING_FILE = "saving"  # exists while a checkpoint is being written
STOPPED_FILE = "stopped.json"
SOCKETS = "sockets"
TOKEN_FILE = "token"  # Jupyter's, among the run's secrets
# In ro/: the program that starts the job, and the environment that it sets first.
WRAPPER = "wrapper"
SERVE = "serve"  # the programs of a service
NOTEBOOK = "notebook"  # the program of a notebook
PLUGIN = "plugin"
SETTINGS = "settings"

# The next step where an engine cannot give GPUs to a container.
TOOLKIT_GUIDE = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
TOOLKIT_NEXT_STEP = (
    """on the host, tell the engine of the NVIDIA Container Toolkit:
sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker
(when it has no nvidia-ctk, install that first: %s)"""
    % TOOLKIT_GUIDE
)
