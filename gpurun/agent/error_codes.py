"""The codes of refusals that travel from the agent to the laptop (`error.code`), for both floors. Nothing is decided by a message."""

# About the question.
PROTOCOL = "protocol"  # this agent does not have the verb, or the laptop is of another protocol
INTERNAL = "internal"  # a bug of gpurun's, wherever it happened

# About the host.
DISK_FULL = "disk_full"
LOCKS = "locks"  # the folder of locks cannot be used
QUEUE = "queue"  # the folder of tickets and leases cannot be used
NVIDIA_SMI = "nvidia_smi"  # nvidia-smi fails, hangs, or is away
TOO_MANY_GPUS = "too_many_gpus"  # more were asked for than the host has
TOO_FEW_GPUS = "too_few_gpus"  # the host has fewer now than the run waits for
DRIVER_TOO_OLD = "driver_too_old"
NO_ROOM = "no_room"  # on the engine's disk
NO_RUNTIME = "no_runtime"  # what was asked for cannot run here
ENGINE = "engine_"  # followed by the kind of an EngineError (host/engine.py)
ENGINE_MISSING = ENGINE + "missing"
ENGINE_NO_RIGHT = ENGINE + "no_right"

# About a run.
NO_RUN = "no_run"
NO_ATTEMPT = "no_attempt"
ATTEMPT_ELSEWHERE = "attempt_elsewhere"  # the host that the run was on before has this attempt's log
ID_TAKEN = "id_taken"  # another run has this id
LIVE = "live"  # something of the run still runs
BUSY = "busy"  # another process works on the run for a moment
GATHERING = "gathering"  # another process copies out of the run's container
NEWER = "newer"  # only a newer gpurun may touch the run
DAMAGED = "damaged"  # the run's journal cannot be read to its end
ELSEWHERE = "elsewhere"  # the run belongs to another machine, or may
NOT_ABANDONED = "not_abandoned"
SERVICE = "service"  # a service cannot be resumed
NOT_SENT = "not_sent"  # the project never arrived complete
NOT_STARTED = "not_started"
SNAPSHOT_DIFFERS = "snapshot_differs"  # the project changed while it was sent
ENV = "env"  # a variable is missing, or cannot be set
CHANGED_SINCE = "changed_since"  # what is to be removed is not as it was when that was agreed to
IMAGE_GONE = "image_gone"
JOB_LIVES = "job_lives"  # processes do not end after KILL
CONTAINER_RUNS = "runs"  # the container of an ended run
NOT_COPIED = "not_copied"  # a container holds what is nowhere else
LOG_UNREADABLE = "log_unreadable"
ABOUT = "about"  # the job's Python could not be asked what it has

# About a checkpoint, and a move to another host.
NO_CHECKPOINT = "no_checkpoint"
NOT_COMPLETE = "not_whole"  # a checkpoint did not arrive complete
MOVING = "moving"  # the run is on its way to another host
MOVED = "moved"  # the run went on on another host
REVOKED = "revoked"  # the move was given up
WENT_ON = "went_on"  # the run went on here since

# About data, and leaving a host.
NO_DATA = "no_data"
BAD_NAME = "bad_name"
MORE_RUNS = "more_runs"  # runs came that were not agreed to go
MORE_DATA = "more_data"  # data folders came that were not agreed to go
