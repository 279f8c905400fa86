"""List the error codes that travel from the agent to the laptop (`error.code`).

No program decides anything by the text of a message.
"""

# About the request.
PROTOCOL = "protocol"  # this agent lacks the verb, or the laptop has another protocol
INTERNAL = "internal"  # a bug in gpurun, on either side

# About the host.
DISK_FULL = "disk_full"
LOCKS = "locks"  # the folder of locks cannot be used
QUEUE = "queue"  # the folder of tickets and leases cannot be used
NVIDIA_SMI = "nvidia_smi"  # nvidia-smi fails, hangs, or is missing
TOO_MANY_GPUS = "too_many_gpus"  # more GPUs were requested than the host has
TOO_FEW_GPUS = "too_few_gpus"  # the host now has fewer GPUs than the run waits for
DRIVER_TOO_OLD = "driver_too_old"
NO_ROOM = "no_room"  # on the engine's disk
NO_RUNTIME = "no_runtime"  # the requested runtime cannot run here
ENGINE = "engine_"  # followed by the kind of an EngineError (host/engine.py)
ENGINE_MISSING = ENGINE + "missing"
ENGINE_NO_RIGHT = ENGINE + "no_right"

# About a run.
NO_RUN = "no_run"
NO_ATTEMPT = "no_attempt"
ATTEMPT_ELSEWHERE = "attempt_elsewhere"  # the host that the run was on before has this attempt's log
ID_TAKEN = "id_taken"  # another run has this id
LIVE = "live"  # something of the run still runs
BUSY = "busy"  # another process works on the run right now
GATHERING = "gathering"  # another process copies files out of the run's container
NEWER = "newer"  # only a newer gpurun may touch the run
DAMAGED = "damaged"  # the run's journal cannot be read to its end
ELSEWHERE = "elsewhere"  # the run belongs, or may belong, to another host
NOT_ABANDONED = "not_abandoned"
SERVICE = "service"  # a service cannot be resumed
NOT_SENT = "not_sent"  # the project never arrived completely
NOT_STARTED = "not_started"
SNAPSHOT_DIFFERS = "snapshot_differs"  # the project changed while it was sent
ENV = "env"  # a variable is missing, or cannot be set
CHANGED_SINCE = "changed_since"  # the data to be removed has changed since the user agreed to remove it
IMAGE_GONE = "image_gone"
JOB_LIVES = "job_lives"  # processes do not end after SIGKILL
CONTAINER_RUNS = "runs"  # the container of an ended run is running
NOT_COPIED = "not_copied"  # a container has files that exist nowhere else
LOG_UNREADABLE = "log_unreadable"
ABOUT = "about"  # the job's Python could not report its packages

# About a checkpoint, and a move to another host.
NO_CHECKPOINT = "no_checkpoint"
NOT_COMPLETE = "not_whole"  # a checkpoint did not arrive completely
MOVING = "moving"  # the run is on its way to another host
MOVED = "moved"  # the run continues on another host
REVOKED = "revoked"  # the move was cancelled
WENT_ON = "went_on"  # the run has continued here in the meantime

# About data, and leaving a host.
NO_DATA = "no_data"
BAD_NAME = "bad_name"
MORE_RUNS = "more_runs"  # there are new runs that the user has not agreed to remove
MORE_DATA = "more_data"  # there are new data folders that the user has not agreed to remove
